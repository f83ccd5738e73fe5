"""The scores as functions of features or images; each class of :mod:`repro.metrics` calls the same ones."""

from repro.metrics.functional.conditional import (
    ConditionalRates,
    between_matches,
    between_reproducibility_score,
    conditional_reproducibility_score,
)
from repro.metrics.functional.copies import have_copies
from repro.metrics.functional.curves import generalization_curve, reproducibility_curve
from repro.metrics.functional.distances import frechet_distance, kernel_distance
from repro.metrics.functional.encoding import code_statistics, encoding_matches, encoding_reproducibility_score
from repro.metrics.functional.generalization import generalization_score, memorization_matches, nearest_other
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.likelihood import Likelihood, bits_per_dimension, log_density
from repro.metrics.functional.mae import mae_matches, mae_score
from repro.metrics.functional.paired import PairedTest, mcnemar_test, paired_reproducibility_test
from repro.metrics.functional.reproducibility import (
    reproducibility_matches,
    reproducibility_matrix,
    reproducibility_score,
)
from repro.metrics.functional.similarity import nearest

__all__ = [
    "ConditionalRates",
    "Likelihood",
    "PairedTest",
    "between_matches",
    "between_reproducibility_score",
    "bits_per_dimension",
    "code_statistics",
    "conditional_reproducibility_score",
    "encoding_matches",
    "encoding_reproducibility_score",
    "frechet_distance",
    "generalization_curve",
    "generalization_score",
    "have_copies",
    "kernel_distance",
    "log_density",
    "mae_matches",
    "mae_score",
    "mcnemar_test",
    "memorization_matches",
    "nearest",
    "nearest_other",
    "paired_reproducibility_test",
    "reproducibility_curve",
    "reproducibility_matches",
    "reproducibility_matrix",
    "reproducibility_score",
    "wilson_interval",
]
