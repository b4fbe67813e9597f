"""What a search is, and the strategies that drive NNI engines."""
