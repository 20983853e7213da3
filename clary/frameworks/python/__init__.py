"""Script mode of plain Python."""
