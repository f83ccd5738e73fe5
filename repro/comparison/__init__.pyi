from .comparing import Comparison as Comparison, compare as compare
from .counting import derangement as derangement
from .report import write_report as write_report
from .results import (
    Conditions as Conditions,
    Memorization as Memorization,
    Outcomes as Outcomes,
    PairCounts as PairCounts,
    PairValues as PairValues,
    Results as Results,
)
from .write import write_results as write_results
