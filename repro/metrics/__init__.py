"""Scores: pure functions in :mod:`repro.metrics.functional`, classes with integer states here."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["GeneralizationScore", "MAEScore", "PairMetric", "RateMetric", "ReproducibilityScore", "functional"]

_HOMES = {
    "GeneralizationScore": "repro.metrics.generalization",
    "MAEScore": "repro.metrics.mae",
    "PairMetric": "repro.metrics.base",
    "RateMetric": "repro.metrics.base",
    "ReproducibilityScore": "repro.metrics.reproducibility",
}


def __getattr__(name: str) -> Any:
    if name == "functional":
        return importlib.import_module("repro.metrics.functional")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
