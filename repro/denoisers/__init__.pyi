from .base import Denoiser as Denoiser, UnderKernel as UnderKernel
from .empirical import EmpiricalDenoiser as EmpiricalDenoiser
from .gaussian import FittedGaussianDenoiser as FittedGaussianDenoiser, GaussianDenoiser as GaussianDenoiser
from .guided import GuidedDenoiser as GuidedDenoiser
from .mixture import LowRankMixtureDenoiser as LowRankMixtureDenoiser
from .network import NetworkDenoiser as NetworkDenoiser
