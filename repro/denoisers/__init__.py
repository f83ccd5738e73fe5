r"""Denoisers: a network (or a formula) under a kernel and a parameterisation; gives :math:`x_0`, noise and score.

All of them answer the same question, the posterior mean :math:`E[x_0 | x_t]`, so samplers, tasks and studies never
ask where a denoiser came from. Those with a closed form, the best possible answer for a known distribution, are
denoisers like any other.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
