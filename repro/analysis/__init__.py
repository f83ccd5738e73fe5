"""What the studies measure on denoisers and samplers: Jacobians, maps of noise planes, errors of the score."""

from repro.analysis.jacobian import Spectrum, gradient_similarity, jacobian, numerical_rank, spectra_along, spectrum
from repro.analysis.manifold import NoisePlane, RegionMap, local_lipschitz, region_agreement, region_map
from repro.analysis.score_error import score_error, score_error_by_ratio

__all__ = [
    "NoisePlane",
    "RegionMap",
    "Spectrum",
    "gradient_similarity",
    "jacobian",
    "local_lipschitz",
    "numerical_rank",
    "region_agreement",
    "region_map",
    "score_error",
    "score_error_by_ratio",
    "spectra_along",
    "spectrum",
]
