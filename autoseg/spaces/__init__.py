"""Search spaces: NNI model spaces, one file each."""

from autoseg.quiet import load_nni

load_nni()  # before any module here imports NNI by itself
