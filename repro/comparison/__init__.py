"""Comparison of sample banks: who draws the same image from the same noise, and who copies the training set."""

from repro.comparison.results import Comparison, Memorization, PairCounts
from repro.comparison.scoring import compare, default_descriptor, derangement

__all__ = ["Comparison", "Memorization", "PairCounts", "compare", "default_descriptor", "derangement"]
