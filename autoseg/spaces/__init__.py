"""Search spaces: NNI model spaces, one file each."""
