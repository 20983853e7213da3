"""k-nearest neighbours: a sample of the records, and the labels of those nearest to a question."""
