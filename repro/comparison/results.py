"""What a comparison of sample banks counted, and under which conditions: data and arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.banks import Bank
from repro.errors import UserError, unknown
from repro.metrics.functional.curves import THRESHOLDS, counts_above, counts_below
from repro.metrics.functional.intervals import check_confidence, wilson_interval
from repro.metrics.functional.mae import check_mae_threshold
from repro.metrics.functional.paired import PairedTest, mcnemar_test
from repro.metrics.functional.similarity import check_threshold, exceeds

__all__ = ["Conditions", "Memorization", "Outcomes", "PairCounts", "PairValues", "Results", "Sense", "counted"]

Sense = Literal[">", "<", ""]
"""An outcome counts where its value is above (>) or below (<) the threshold; empty: it has no value."""


@dataclass(frozen=True)
class Conditions:
    """Everything that a count depends on besides the images; every table, figure and record begins with it.

    Attributes:
        descriptor: Of the descriptor: ``name``, ``fingerprint``, ``record`` and ``default_threshold``.
        threshold: Similarity in [-1, 1] above which two images are the same (RP, GL).
        mae_threshold: Mean pixel difference in [0, 255] below which they are close (MAE).
        n: Number of noises, at least 1; of conditional systems, of noises and classes.
        data: What the systems were trained on, for people.
        control_seed: Number of the fixed shuffle that pairs each noise with another one.
        confidence: Coverage of every interval, in (0, 1).

    Raises:
        UserError: a number outside its range.
    """

    descriptor: Mapping[str, Any]
    threshold: float
    mae_threshold: float
    n: int
    data: str
    control_seed: int = 0
    confidence: float = 0.95

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold", check_threshold(self.threshold))
        object.__setattr__(self, "mae_threshold", check_mae_threshold(self.mae_threshold))
        object.__setattr__(self, "confidence", check_confidence(self.confidence))
        if self.n < 1:
            raise UserError(f"a comparison of {self.n} noises counts nothing; give at least 1")

    @property
    def percent(self) -> str:
        """Coverage of the intervals as text, such as ``95 %``."""
        return f"{100 * self.confidence:g} %"

    def cells(self) -> dict[str, Any]:
        """First cells of every row of every table; a row's own ``n`` or ``threshold`` takes the place of these."""
        return self.record() | {"descriptor": self.descriptor["name"]}

    def record(self) -> dict[str, Any]:
        """Turns the conditions into plain JSON data."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, repr=False)
class Outcomes:
    """What one pair of systems gave on each noise (of conditional systems: on each noise and class).

    Attributes:
        matches: Which count as alike, bool (n,).
        control: The same with the second system's noises shuffled, or None.
        values: What was compared with the threshold, (n,), or None.
        control_values: The same under shuffled noises, or None.
        first: Rows of the first system's bank that were compared, int64 (n,); None for all in their order.
        second: Rows of the second system's.
    """

    matches: np.ndarray
    control: np.ndarray | None = None
    values: np.ndarray | None = None
    control_values: np.ndarray | None = None
    first: np.ndarray | None = None
    second: np.ndarray | None = None

    def rows(self, row: int) -> tuple[int, int]:
        """Returns rows of the two banks that one outcome compares."""
        first, second = (row if rows is None else int(rows[row]) for rows in (self.first, self.second))
        return first, second


@dataclass(frozen=True)
class PairCounts:
    """Integer match counts of every pair of K systems, and of the same pairs on shuffled noises.

    Attributes:
        name: Name of the score.
        counts: int64 (K, K), symmetric; the diagonal compares a system with itself.
        control: The same with the second system's noises shuffled (chance level), or None when n is 1. Its diagonal
            compares a system with itself under other noises.
        n: Number of noises (of noises and classes for conditional systems); the largest where pairs differ.
        totals: Number of each pair, int64 (K, K); 0 where the score compares nothing.
        outcomes: By pair (i, j), i <= j: what was counted.
        sense: Which side of the threshold counts.
        threshold: Where outcomes have values: the threshold.
    """

    name: str
    counts: np.ndarray
    control: np.ndarray | None
    n: int
    totals: np.ndarray
    outcomes: dict[tuple[int, int], Outcomes] = field(repr=False)
    sense: Sense = ""
    threshold: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        count: int,
        outcomes: dict[tuple[int, int], Outcomes],
        sense: Sense = "",
        threshold: float | None = None,
    ) -> PairCounts:
        """Counts the outcomes of K systems."""
        counts: NDArray[np.int64] = np.zeros((count, count), dtype=np.int64)
        control, totals = counts.copy(), counts.copy()
        for pair, outcome in outcomes.items():
            for i, j in {pair, pair[::-1]}:
                counts[i, j], totals[i, j] = outcome.matches.sum(), len(outcome.matches)
                control[i, j] = 0 if outcome.control is None else outcome.control.sum()
        controlled = all(outcome.control is not None for outcome in outcomes.values())
        return cls(name, counts, control if controlled else None, int(totals.max()), totals, outcomes, sense, threshold)

    @property
    def rates(self) -> np.ndarray:
        """Rates of every pair, counts over n, (K, K); NaN where nothing was compared."""
        return self._over(self.counts)

    @property
    def control_rates(self) -> np.ndarray | None:
        """Rates of every pair on shuffled noises, counts over n, (K, K)."""
        return None if self.control is None else self._over(self.control)

    def _over(self, counts: np.ndarray) -> np.ndarray:
        return np.divide(counts, self.totals, out=np.full(counts.shape, np.nan), where=self.totals > 0)

    def pairs(self) -> list[tuple[int, int]]:
        """Returns the pairs of different systems that were compared, first < second, in their order."""
        return sorted(pair for pair in self.outcomes if pair[0] != pair[1])

    def interval(self, first: int, second: int, confidence: float = 0.95) -> tuple[float, float]:
        """Returns the Wilson interval of one pair's rate."""
        return wilson_interval(int(self.counts[first, second]), int(self.totals[first, second]), confidence)

    def thresholds(self) -> list[float]:
        """Thresholds of :meth:`curve`: evenly spaced, the score's own among them; none for a score without values."""
        if self.threshold is None:
            return []
        scale = 1.0 if self.sense == ">" else 255.0
        return sorted({*(step * scale for step in THRESHOLDS), self.threshold})

    def curve(self, first: int, second: int, control: bool = False) -> np.ndarray:
        """Counts of one pair at each of :meth:`thresholds`, int64 (t,), on the noises or on shuffled ones."""
        outcome = self.outcomes[min(first, second), max(first, second)]
        values = torch.from_numpy(outcome.control_values if control else outcome.values)
        return (counts_above if self.sense == ">" else counts_below)(values, self.thresholds()).numpy()


@dataclass(frozen=True)
class PairValues:
    """Values of a metric that is no rate, of every pair of K systems.

    Attributes:
        name: Name of the score.
        values: float64 (K, K), symmetric; NaN on the diagonal and where nothing was compared.
        control: The same on shuffled noises, or None for a metric of whole sets.
        train: Of each system and its training images, float64 (K,), for a metric of whole sets; NaN without them.
    """

    name: str
    values: np.ndarray
    control: np.ndarray | None
    train: np.ndarray | None

    @classmethod
    def empty(cls, name: str, count: int, paired: bool) -> PairValues:
        """Makes the empty values of K systems for a metric of pairs of images or of whole sets."""
        blank = np.full((count, count), np.nan)
        return cls(name, blank, blank.copy() if paired else None, None if paired else np.full(count, np.nan))


@dataclass(frozen=True)
class Memorization:
    """Copies of training images among the samples of one system.

    Attributes:
        copies: Which samples exceed the threshold, bool (n,).
        similarity: To the nearest training image, (n,).
        index: Its place in the training set, int64 (n,).
        train_size: Number of training images.
        chance: Similarity to the nearest training image of images that no system drew, (m,) each, by kind. ``unseen``:
            training images, searched among the other ones; ``noise``: training images with their pixels shuffled.
            Empty where the training set is a single image.
        threshold: Similarity above which an image is a copy.
    """

    copies: np.ndarray
    similarity: np.ndarray
    index: np.ndarray
    train_size: int
    chance: Mapping[str, np.ndarray]
    threshold: float

    @property
    def count(self) -> int:
        """Number of samples that are no copy of a training image."""
        return int(len(self.copies) - self.copies.sum())

    @property
    def rate(self) -> float:
        """GL score: the share of samples that are no copy of a training image."""
        return self.count / len(self.copies)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Returns the Wilson interval of GL."""
        return wilson_interval(self.count, len(self.copies), confidence)

    def chance_count(self, kind: str) -> int:
        """Returns images of a kind in ``chance`` that are no copy."""
        return int((~exceeds(torch.from_numpy(self.chance[kind]), self.threshold)).sum())

    def thresholds(self) -> list[float]:
        """Returns thresholds of :meth:`curve`: evenly spaced from 0 to 1, the comparison's own among them."""
        return sorted({*THRESHOLDS, self.threshold})

    def curve(self, chance: str = "") -> list[int]:
        """Returns samples, or images of a kind in ``chance``, that are no copy at each of :meth:`thresholds`."""
        similarity = torch.from_numpy(self.chance[chance] if chance else self.similarity)
        return (len(similarity) - counts_above(similarity, self.thresholds())).tolist()


@dataclass(frozen=True, repr=False)
class Results:
    """What K systems drew from the same noises, counted.

    Attributes:
        names: Of the K systems.
        banks: What was compared.
        conditions: Under which it was counted.
        scores: By name: ``RP`` and ``MAE`` of unconditional systems and of conditional ones, over all noises and
            classes; ``Between RP`` of an unconditional with a conditional system; further pair metrics.
        memorization: One for each system, None where no training images were given.
        train: The training images of each system, or None.
        values: Further metrics that are no rates, by name.
        paired: Names of the systems whose pairs are tested against each other; None for all of a few systems.
        warnings: What makes these numbers less trustworthy, one line each.
        notes: How images were come by, one line each.
    """

    names: list[str]
    banks: list[Bank]
    conditions: Conditions
    scores: dict[str, PairCounts]
    memorization: list[Memorization | None]
    train: list[Tensor | None]
    values: dict[str, PairValues] = field(default_factory=dict)
    paired: tuple[str, ...] | None = None
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Number of images of each; of noises, where some systems draw several images from each."""
        return self.conditions.n

    @property
    def descriptor(self) -> Mapping[str, Any]:
        """Name, fingerprint, record and default threshold of the descriptor."""
        return self.conditions.descriptor

    @property
    def threshold(self) -> float:
        """Similarity above which two images count as the same in RP and GL."""
        return self.conditions.threshold

    @property
    def mae_threshold(self) -> float:
        """Mean pixel difference below which two images count as alike in MAE, in [0, 255]."""
        return self.conditions.mae_threshold

    @property
    def noises(self) -> int:
        """Number of noises that every system drew from."""
        return len(self.banks[0].manifest.seeds)

    @property
    def classes(self) -> int:
        """Number of classes of the conditional systems, 0 when there are none."""
        return max(bank.manifest.num_classes for bank in self.banks)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, where the conditional systems have the same ones; else empty."""
        names = {bank.manifest.class_names for bank in self.banks if bank.manifest.num_classes}
        return names.pop() if len(names) == 1 else ()

    def paired_test(self, system: str, first: str, second: str, score: str = "RP") -> PairedTest:
        """Tests whether a system is more alike to the first than to the second of two others, on the same noises.

        McNemar's exact test; see :func:`repro.metrics.functional.mcnemar_test`.

        Args:
            system: Name of A in "is RP(A, B) different from RP(A, C)?".
            first: Name of B.
            second: Name of C.
            score: Name of the score.

        Raises:
            UserError: an unknown name, or pairs that the score does not compare on the same noises.
        """
        if score not in self.scores:
            raise unknown("score", score, list(self.scores))
        for name in (system, first, second):
            if name not in self.names:
                raise unknown("system", name, self.names)
        numbers, matches = [self.names.index(name) for name in (system, first, second)], []
        for name, other in zip((first, second), numbers[1:], strict=True):
            outcome = self.scores[score].outcomes.get((min(numbers[0], other), max(numbers[0], other)))
            if outcome is None:
                raise UserError(f"{score} does not compare {system!r} with {name!r}; name another score or system")
            matches.append(outcome.matches)
        return mcnemar_test(matches[0], matches[1], self.conditions.confidence)


def counted(count: int, n: int, prefix: str = "", confidence: float = 0.95) -> dict[str, Any]:
    """Returns count, n, rate and interval as cells of a table; n only without a prefix."""
    low, high = wilson_interval(count, n, confidence)
    values = {"count": count, "n": n, "rate": count / n, "low": low, "high": high}
    return {prefix + key: value for key, value in values.items() if not (prefix and key == "n")}
