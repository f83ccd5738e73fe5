"""Comparison of sample banks: who draws the same image from the same noise, and who copies the training set."""

from repro.comparison.counting import derangement
from repro.comparison.results import Comparison, Memorization, Outcomes, PairCounts, PairValues
from repro.comparison.scoring import compare

__all__ = [
    "Comparison",
    "Memorization",
    "Outcomes",
    "PairCounts",
    "PairValues",
    "compare",
    "derangement",
]
