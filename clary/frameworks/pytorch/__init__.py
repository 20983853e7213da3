"""Script mode of PyTorch."""
