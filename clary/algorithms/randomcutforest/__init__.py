"""Random Cut Forest: how much a record would change trees of random cuts through a sample of the others."""
