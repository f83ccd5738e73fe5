"""The scores as functions of features or images; each class of :mod:`repro.metrics` calls the same ones."""

from repro.intervals import wilson_interval
from repro.metrics.functional.generalization import generalization_score, memorization_matches
from repro.metrics.functional.mae import mae_matches, mae_score
from repro.metrics.functional.reproducibility import reproducibility_matches, reproducibility_score
from repro.metrics.functional.similarity import nearest

__all__ = [
    "generalization_score",
    "mae_matches",
    "mae_score",
    "memorization_matches",
    "nearest",
    "reproducibility_matches",
    "reproducibility_score",
    "wilson_interval",
]
