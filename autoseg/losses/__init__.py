"""Losses: callables from logits and class-index targets to a scalar."""
