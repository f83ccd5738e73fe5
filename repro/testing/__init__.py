"""Laws that every plug-in of a kind obeys; run them on your own."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
