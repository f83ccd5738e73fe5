"""From noise to image: a sampler makes a run, a run takes steps; `trajectory` shows each."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
