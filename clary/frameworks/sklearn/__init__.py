"""Script mode of scikit-learn."""
