from .counting import derangement as derangement
from .files import write_comparison as write_comparison
from .report import write_report as write_report
from .results import (
    Comparison as Comparison,
    Memorization as Memorization,
    Outcomes as Outcomes,
    PairCounts as PairCounts,
    PairValues as PairValues,
)
from .scoring import compare as compare
