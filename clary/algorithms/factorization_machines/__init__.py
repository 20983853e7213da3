"""The built-in Factorization Machines: linear models with factors for how features go together."""
