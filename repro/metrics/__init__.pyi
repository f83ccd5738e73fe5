from . import functional as functional
from .base import CountMetric as CountMetric, PairMetric as PairMetric, RateMetric as RateMetric
from .conditional import (
    BetweenReproducibilityScore as BetweenReproducibilityScore,
    ConditionalReproducibilityScore as ConditionalReproducibilityScore,
)
from .distances import (
    FID as FID,
    KID as KID,
    FrechetDistance as FrechetDistance,
    KernelDistance as KernelDistance,
    SetMetric as SetMetric,
)
from .encoding import EncodingReproducibilityScore as EncodingReproducibilityScore
from .generalization import GeneralizationScore as GeneralizationScore
from .likelihood import BitsPerDimension as BitsPerDimension
from .mae import MAEScore as MAEScore
from .matrix import ReproducibilityCurve as ReproducibilityCurve, ReproducibilityMatrix as ReproducibilityMatrix
from .reproducibility import ReproducibilityScore as ReproducibilityScore
