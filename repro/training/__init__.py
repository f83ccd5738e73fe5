"""Training modes: LightningModules that have a model, and what stands beside them in a training."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
