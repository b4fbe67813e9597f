"""Training from scratch, evaluation and the verdict."""

from autoseg.quiet import load_nni

load_nni()  # before any module here imports NNI by itself
