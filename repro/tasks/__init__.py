"""What is drawn for each noise: one image, one of every class, or one after fine-tuning."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
