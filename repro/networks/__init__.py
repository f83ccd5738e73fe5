"""Networks `F(x, noise_level, labels)`: they know images and noise levels, nothing of kernels, losses or samplers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
