"""Our own checkpoint files: plain records and tensors, written whole and read without executing anything."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
