"""What a search is, and the strategies that drive NNI engines."""

from autoseg.quiet import load_nni

load_nni()  # before any module here imports NNI by itself
