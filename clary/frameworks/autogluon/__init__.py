"""Script mode of AutoGluon."""
