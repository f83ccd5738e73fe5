"""The experiments of the paper and of this project: one short file each; list them with ``repro study --list``."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
