"""Training from scratch, evaluation and the verdict."""
