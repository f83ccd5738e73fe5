"""Do different generative models learn the same thing?

Train, import and sample any family of image models from the same numbered noises, and measure how alike they are and
how much they memorise. In all of it :math:`x_t = \\alpha_t x_0 + \\sigma_t \\epsilon`, and time runs from the data
(``t_min``) to the noise (``t_max``); images are floats in [-1, 1] inside, uint8 on the disk and in scores.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
