"""The built-in XGBoost."""
