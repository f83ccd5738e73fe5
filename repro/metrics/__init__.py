"""Scores: pure functions in :mod:`repro.metrics.functional`, classes with integer states here."""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "BetweenReproducibilityScore": "repro.metrics.conditional",
    "ConditionalReproducibilityScore": "repro.metrics.conditional",
    "CountMetric": "repro.metrics.base",
    "FID": "repro.metrics.distances",
    "FrechetDistance": "repro.metrics.distances",
    "GeneralizationScore": "repro.metrics.generalization",
    "KID": "repro.metrics.distances",
    "KernelDistance": "repro.metrics.distances",
    "MAEScore": "repro.metrics.mae",
    "PairMetric": "repro.metrics.base",
    "RateMetric": "repro.metrics.base",
    "ReproducibilityCurve": "repro.metrics.matrix",
    "ReproducibilityMatrix": "repro.metrics.matrix",
    "ReproducibilityScore": "repro.metrics.reproducibility",
    "SetMetric": "repro.metrics.distances",
}

__all__ = [*_HOMES, "functional"]


def __getattr__(name: str) -> Any:
    if name == "functional":
        return importlib.import_module("repro.metrics.functional")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
