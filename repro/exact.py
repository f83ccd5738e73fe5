"""Old path of the exact denoisers, to be removed."""

from repro.denoisers import EmpiricalDenoiser, GaussianDenoiser

__all__ = ["EmpiricalDenoiser", "GaussianDenoiser"]
