"""Objects as plain data and back, settings under dotted keys, and the type hints that both are checked against."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
