"""Losses: callables from logits and class-index targets to a scalar; docs/losses.md has the table.

All take logits ``(N, C, H, W)`` and int64 class indices ``(N, H, W)``, binary problems as two classes under a
softmax. Pixels whose target is the ignore index add nothing, neither to the value nor to the gradient; when every
pixel is ignored the loss is 0 with a gradient of 0, so that one empty batch cannot spoil a training. Logits in half
precision are raised to float32 first, because sums over all pixels of a batch overflow float16.

A loss may have ``from_training(fractions)``, a class method that makes options out of the share of each class in
the training pixels (:mod:`autoseg.losses.training`).
"""
