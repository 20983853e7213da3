"""K-Means: centres found in a stream, many more than asked for, and then shrunk to the asked number."""
