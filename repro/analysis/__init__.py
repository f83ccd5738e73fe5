"""What studies measure on denoisers, samplers and descriptors: Jacobians, noise planes, score errors, copies found."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
