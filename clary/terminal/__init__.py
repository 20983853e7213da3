"""What commands draw on a terminal of plain characters."""
