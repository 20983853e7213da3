"""Script mode of XGBoost."""
