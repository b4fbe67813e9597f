"""The AutoSegNet controller as a plugin of autoseg: strategy ``autosegnet``.

:mod:`~autoseg_autosegnet.controller` is the recurrent network that proposes architectures and learns from
their rewards, :mod:`~autoseg_autosegnet.order` puts the decisions of a space into the order in which it
takes them, and :mod:`~autoseg_autosegnet.strategy` makes a search out of them.
"""

__version__ = "0.1.0"
