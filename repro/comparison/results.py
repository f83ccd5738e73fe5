"""What a comparison of sample banks found: integer counts with their intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank, format_seeds
from repro.metrics.functional.curves import THRESHOLDS
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.paired import PairedTest
from repro.metrics.protocol import is_paired

__all__ = ["Comparison", "Memorization", "Outcomes", "PairCounts", "PairValues", "counted"]


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
        sense: ``>`` or ``<`` when outcomes have values and match above or below the threshold, else empty.
        threshold: Which one.
    """

    name: str
    counts: np.ndarray
    control: np.ndarray | None
    n: int
    totals: np.ndarray
    outcomes: dict[tuple[int, int], Outcomes] = field(repr=False)
    sense: Literal[">", "<", ""] = ""
    threshold: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        count: int,
        outcomes: dict[tuple[int, int], Outcomes],
        sense: Literal[">", "<", ""] = "",
        threshold: float | None = None,
    ) -> PairCounts:
        """Counts the outcomes of K systems."""
        counts, control, totals = np.zeros((3, count, count), dtype=np.int64)
        for place, found in outcomes.items():
            for i, j in {place, place[::-1]}:
                counts[i, j], totals[i, j] = found.matches.sum(), len(found.matches)
                control[i, j] = 0 if found.control is None else found.control.sum()
        controlled = all(found.control is not None for found in outcomes.values())
        return cls(name, counts, control if controlled else None, int(totals.max()), totals, outcomes, sense, threshold)

    @property
    def rates(self) -> np.ndarray:
        """Counts over n, (K, K); NaN where nothing was compared."""
        return self._over(self.counts)

    @property
    def control_rates(self) -> np.ndarray | None:
        """Control counts over n, (K, K)."""
        return None if self.control is None else self._over(self.control)

    def _over(self, counts: np.ndarray) -> np.ndarray:
        return np.divide(counts, self.totals, out=np.full(counts.shape, np.nan), where=self.totals > 0)

    def pairs(self) -> list[tuple[int, int]]:
        """The pairs of different systems that were compared, first < second, in their order."""
        return sorted(place for place in self.outcomes if place[0] != place[1])

    def interval(self, first: int, second: int, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of one pair's rate."""
        return wilson_interval(int(self.counts[first, second]), int(self.totals[first, second]), confidence)

    def thresholds(self) -> list[float]:
        """Where :meth:`curve` is taken: evenly, with the score's own threshold among them; none without values."""
        if not self.sense:
            return []
        scale = 1.0 if self.sense == ">" else 255.0
        return sorted({*(step * scale for step in THRESHOLDS), float(self.threshold)})

    def curve(self, first: int, second: int, control: bool = False) -> np.ndarray:
        """Counts of one pair at each of :meth:`thresholds`, int64 (t,), on the noises or on shuffled ones."""
        found = self.outcomes[min(first, second), max(first, second)]
        ordered = np.sort(found.control_values if control else found.values)
        limits = np.asarray(self.thresholds()).astype(ordered.dtype)
        if self.sense == ">":
            return len(ordered) - np.searchsorted(ordered, limits, side="right")
        return np.searchsorted(ordered, limits, side="left")


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
    def empty(cls, name: str, count: int, metric: Metric) -> PairValues:
        """Nothing yet, for K systems."""
        blank = np.full((count, count), np.nan)
        paired = is_paired(metric)
        return cls(name, blank, blank.copy() if paired else None, None if paired else np.full(count, np.nan))

    @staticmethod
    def fill(values: np.ndarray, place: tuple[int, int], value: float) -> None:
        """Sets both cells of a pair."""
        values[place] = values[place[::-1]] = value


@dataclass(frozen=True)
class Memorization:
    """Copies of training images among the samples of one system.

    Attributes:
        copies: Which samples exceed the threshold, bool (n,).
        similarity: To the nearest training image, (n,).
        index: Its place in the training set, int64 (n,).
        train_size: Number of training images.
    """

    copies: np.ndarray
    similarity: np.ndarray
    index: np.ndarray
    train_size: int

    @property
    def count(self) -> int:
        """Samples that are no copy."""
        return int(len(self.copies) - self.copies.sum())

    @property
    def rate(self) -> float:
        """GL score."""
        return self.count / len(self.copies)

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of GL."""
        return wilson_interval(self.count, len(self.copies), confidence)

    def thresholds(self, threshold: float) -> list[float]:
        """Where :meth:`curve` is taken: evenly from 0 to 1, with the given threshold among them."""
        return sorted({*THRESHOLDS, float(threshold)})

    def curve(self, threshold: float) -> list[int]:
        """Samples that are no copy at each of :meth:`thresholds`."""
        ordered = np.sort(self.similarity)
        limits = np.asarray(self.thresholds(threshold)).astype(ordered.dtype)
        return np.searchsorted(ordered, limits, side="right").tolist()


@dataclass(frozen=True)
class Comparison:
    """What :func:`repro.comparison.compare` found; prints as tables, and :meth:`write` puts it in a folder.

    Attributes:
        names: Of the K systems.
        banks: What was compared.
        n: Number of images of each; of noises, where some systems draw several images from each.
        scores: By name: ``RP`` and ``MAE`` of unconditional systems and of conditional ones, over all noises and
            classes; ``Between RP`` of an unconditional with a conditional system; further pair metrics.
        memorization: One for each system, None where no training images were given.
        train: The training images of each system, or None.
        descriptor: Name, fingerprint, record and default threshold of the descriptor.
        threshold: Of RP and GL.
        mae_threshold: Of MAE.
        control_seed: Number of the shuffle.
        values: Further metrics that are no rates, by name.
    """

    names: list[str]
    banks: list[Bank]
    n: int
    scores: dict[str, PairCounts]
    memorization: list[Memorization | None]
    train: list[Tensor | None]
    descriptor: dict[str, Any]
    threshold: float
    mae_threshold: float
    control_seed: int
    values: dict[str, PairValues] = field(default_factory=dict)

    @property
    def noises(self) -> int:
        """Number of noises."""
        return len(self.banks[0].manifest.seeds)

    @property
    def classes(self) -> int:
        """Number of classes of the conditional systems, 0 when there are none."""
        return max(bank.manifest.num_classes for bank in self.banks)

    def table(self) -> list[dict[str, Any]]:
        """One row a score and pair of systems: counts, n, rate, 95 % interval, and the same of the control."""
        rows = []
        for score in self.scores.values():
            for first, second in score.pairs():
                n = int(score.totals[first, second])
                row = {"score": score.name, "first": self.names[first], "second": self.names[second]}
                row |= counted(int(score.counts[first, second]), n)
                if score.control is not None:
                    row |= counted(int(score.control[first, second]), n, "control_")
                rows.append(row)
        return rows

    def value_table(self) -> list[dict[str, Any]]:
        """One row a metric that is no rate and pair of systems, and one a system and its training images."""
        from repro.comparison.tables import value_table

        return value_table(self)

    def conditional_table(self) -> list[dict[str, Any]]:
        """One row a score, pair of conditional systems and class, and one for the mean over the classes."""
        from repro.comparison.tables import conditional_table

        return conditional_table(self)

    def curve_table(self) -> list[dict[str, Any]]:
        """One row a pair of systems and threshold, for RP, MAE and between RP; and one a system, for GL."""
        from repro.comparison.tables import curve_table

        return curve_table(self)

    def paired_test(self, system: str, first: str, second: str, score: str = "RP") -> PairedTest:
        """Is a system more alike to the first than to the second of two others, on the same noises?

        McNemar's exact test; see :func:`repro.metrics.functional.mcnemar_test`.

        Args:
            system: Name of A in "is RP(A, B) different from RP(A, C)?".
            first: Name of B.
            second: Name of C.
            score: Name of the score.

        Raises:
            UserError: an unknown name, or pairs that the score does not compare on the same noises.
        """
        from repro.comparison.tables import paired_test

        return paired_test(self, system, first, second, score)

    def paired_table(self) -> list[dict[str, Any]]:
        """Every paired test of each score, with p-values adjusted over all tests of the score (Holm)."""
        from repro.comparison.tables import paired_table

        return paired_table(self)

    def memorization_table(self) -> list[dict[str, Any]]:
        """One row a system with training images: GL with its counts and interval, nearest similarity."""
        return [
            {"system": name}
            | counted(found.count, len(found.copies))
            | {"train_size": found.train_size, "mean_nearest": float(found.similarity.mean())}
            for name, found in zip(self.names, self.memorization, strict=True)
            if found is not None
        ]

    def record(self) -> dict[str, Any]:
        """Everything that the numbers depend on, as plain JSON data."""
        return {
            "format": 1,
            "n": self.n,
            "seeds": format_seeds(self.banks[0].manifest.seeds),
            "descriptor": self.descriptor,
            "threshold": self.threshold,
            "mae_threshold": self.mae_threshold,
            "confidence": 0.95,
            "control_seed": self.control_seed,
            "systems": [
                {"name": name, "path": None if bank.path is None else str(bank.path), "fingerprint": bank.fingerprint}
                | {key: value for key, value in bank.manifest.record().items() if key not in ("seeds", "format")}
                for name, bank in zip(self.names, self.banks, strict=True)
            ],
            "scores": {score.name: score.counts.tolist() for score in self.scores.values()},
            "controls": {s.name: s.control.tolist() for s in self.scores.values() if s.control is not None},
            "totals": {score.name: score.totals.tolist() for score in self.scores.values()},
            "conditional": self.conditional_table(),
            "values": self.value_table(),
            "memorization": self.memorization_table(),
        }

    def write(self, folder: str | Path, figures: bool = True) -> list[Path]:
        """Writes ``rp.csv``, ``mae.csv``, ``pairs.csv``, ``curves.csv``, ``comparison.json`` and figures.

        Where there is something to say, also ``gl.csv`` and ``nearest.npz`` (training images), ``paired.csv`` (three
        systems or more), ``conditional.csv``, ``between_rp.csv`` (conditional systems) and ``values.csv``.

        Returns:
            The files.
        """
        from repro.comparison.files import write_comparison

        return write_comparison(self, Path(folder), figures)

    def report(self, path: str | Path, megabytes: float = 10.0) -> Path:
        """Writes one self-contained HTML page; see :func:`repro.comparison.report.write_report`."""
        from repro.comparison.report import write_report

        return write_report(self, Path(path), megabytes)

    def to_tensorboard(self, logdir: str | Path, step: int = 0) -> None:
        """Adds rates and figures to a TensorBoard log."""
        from repro.comparison.files import log_comparison

        log_comparison(self, Path(logdir), step)

    def __str__(self) -> str:
        from repro.comparison.text import as_text

        return as_text(self)


def counted(count: int, n: int, prefix: str = "") -> dict[str, Any]:
    """Count, n, rate and 95 % interval as cells of a table; n only without a prefix."""
    low, high = wilson_interval(count, n)
    values = {"count": count, "n": n, "rate": count / n, "low": low, "high": high}
    return {prefix + key: value for key, value in values.items() if not (prefix and key == "n")}
