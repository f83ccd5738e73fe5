"""What runs the jobs of a study: the cores and GPUs of this machine, or a cluster."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
