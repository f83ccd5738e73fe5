"""What a comparison of sample banks found: integer counts with their intervals."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from repro.banks import Bank, format_seeds
from repro.intervals import wilson_interval

__all__ = ["Comparison", "Memorization", "PairCounts"]


@dataclass(frozen=True)
class PairCounts:
    """Integer match counts of every pair of K systems on n noises, and of the same pairs on shuffled noises.

    Attributes:
        name: Name of the score.
        counts: int64 (K, K), symmetric; the diagonal compares a system with itself.
        control: The same with the second system's noises shuffled (chance level), or None when n is 1. Its diagonal
            compares a system with itself under other noises.
        n: Number of noises.
    """

    name: str
    counts: np.ndarray
    control: np.ndarray | None
    n: int

    @property
    def rates(self) -> np.ndarray:
        """Counts over n, (K, K)."""
        return self.counts / self.n

    @property
    def control_rates(self) -> np.ndarray | None:
        """Control counts over n, (K, K)."""
        return None if self.control is None else self.control / self.n

    def interval(self, first: int, second: int, confidence: float = 0.95) -> tuple[float, float]:
        """Wilson interval of one pair's rate."""
        return wilson_interval(int(self.counts[first, second]), self.n, confidence)


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


@dataclass(frozen=True)
class Comparison:
    """What :func:`repro.comparison.compare` found; prints as tables, and :meth:`write` puts it in a folder.

    Attributes:
        names: Of the K systems.
        banks: What was compared.
        n: Number of images of each.
        scores: By name, ``RP`` and ``MAE`` first.
        memorization: One for each system, None where no training images were given.
        train: The training images of each system, or None.
        descriptor: Name, fingerprint, record and default threshold of the descriptor.
        threshold: Of RP and GL.
        mae_threshold: Of MAE.
        control_seed: Number of the shuffle.
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

    def table(self) -> list[dict[str, Any]]:
        """One row a score and pair of systems: counts, n, rate, 95 % interval, and the same of the control."""
        rows = []
        for score in self.scores.values():
            for first in range(len(self.names)):
                for second in range(first + 1, len(self.names)):
                    row = {"score": score.name, "first": self.names[first], "second": self.names[second]}
                    row |= _counted(int(score.counts[first, second]), score.n, "")
                    if score.control is not None:
                        row |= _counted(int(score.control[first, second]), score.n, "control_")
                    rows.append(row)
        return rows

    def memorization_table(self) -> list[dict[str, Any]]:
        """One row a system with training images: GL with its counts and interval, nearest similarity."""
        return [
            {"system": name}
            | _counted(found.count, len(found.copies), "")
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
            "memorization": self.memorization_table(),
        }

    def write(self, folder: str | Path, figures: bool = True) -> list[Path]:
        """Writes ``rp.csv``, ``mae.csv``, ``pairs.csv``, ``gl.csv``, ``nearest.npz``, ``comparison.json`` and figures.

        Returns:
            The files.
        """
        from repro.comparison.files import write_comparison

        return write_comparison(self, Path(folder), figures)

    def to_tensorboard(self, logdir: str | Path, step: int = 0) -> None:
        """Adds rates and figures to a TensorBoard log."""
        from repro.comparison.files import log_comparison

        log_comparison(self, Path(logdir), step)

    def __str__(self) -> str:
        from repro.comparison.files import as_text

        return as_text(self)


def _counted(count: int, n: int, prefix: str) -> dict[str, Any]:
    low, high = wilson_interval(count, n)
    values = {"count": count, "n": n, "rate": count / n, "low": low, "high": high}
    return {prefix + key: value for key, value in values.items() if not (prefix and key == "n")}
