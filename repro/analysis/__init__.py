"""What the studies measure on denoisers and samplers: Jacobians, maps of noise planes, errors of the score."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
