"""Principal components of a stream of records, in one pass."""
