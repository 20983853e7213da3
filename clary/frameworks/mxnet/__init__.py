"""Script mode of MXNet."""
