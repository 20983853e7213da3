"""The built-in Linear Learner: many linear models trained at once, the best of which is kept."""
