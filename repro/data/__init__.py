"""Images to train on: where they are stored, which of them are taken, and the endless stream of batches."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
