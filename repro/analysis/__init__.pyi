from .agreement import Agreement as Agreement, agreement as agreement
from .copy_detection import (
    Detection as Detection,
    detect_copies as detect_copies,
    edited_copies as edited_copies,
    micro_average_precision as micro_average_precision,
)
from .encodings import likeness_of_noises as likeness_of_noises, summary_of_noises as summary_of_noises
from .jacobian import (
    Spectrum as Spectrum,
    gradient_similarity as gradient_similarity,
    jacobian as jacobian,
    numerical_rank as numerical_rank,
    spectra_along as spectra_along,
    spectrum as spectrum,
)
from .manifold import (
    NoisePlane as NoisePlane,
    RegionMap as RegionMap,
    local_lipschitz as local_lipschitz,
    region_agreement as region_agreement,
    region_map as region_map,
)
from .score_error import (
    RatioError as RatioError,
    score_error as score_error,
    score_error_by_ratio as score_error_by_ratio,
)
from .trajectories import denoised_along as denoised_along
