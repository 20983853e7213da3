"""The data formats that the built-in algorithms share."""
