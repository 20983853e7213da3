"""Script mode of TensorFlow."""
