"""Hand-designed networks to compare a search with."""
