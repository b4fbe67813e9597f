"""All that knows NNI's experiments: its manager and web page, its trials, and its training services.

Start with :mod:`autoseg.nnibridge.manager` (the node process with the page) and
:mod:`autoseg.nnibridge.channel` (our end of NNI's tuner channel). What the page lets others do, and what is
done about it, is in docs/security.md.
"""
