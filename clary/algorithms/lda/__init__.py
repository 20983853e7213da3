"""Topics of a collection of documents: Latent Dirichlet Allocation."""
