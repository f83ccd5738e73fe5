"""Scores of one model while it is sampled: against reference banks, and against its training images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank
from repro.descriptors.base import Descriptor, features_of_bank
from repro.errors import UserError
from repro.metrics import GeneralizationScore, MAEScore, ReproducibilityScore
from repro.metrics.base import RateMetric

__all__ = ["Scores"]


class Scores:
    """RP, MAE and further pair metrics against each reference, GL against the training images.

    Counts are integers, add up exactly over processes, and hold each noise once.

    Args:
        references: Banks to compare with, by name; each holds at least the seeds that are scored.
        descriptor: Gives the features of RP and GL.
        threshold: Similarity above which two images are the same.
        mae_threshold: Mean absolute difference below which they are, in [0, 255].
        train: Training images, uint8 (N, C, H, W), for GL; None leaves it out.
        metrics: Further metrics by name, copied for each reference: any ``torchmetrics.Metric`` whose ``update`` takes
            two sets of uint8 images, or a :class:`repro.metrics.PairMetric`.
        device: Where the descriptor runs.
    """

    def __init__(
        self,
        references: Mapping[str, Bank],
        descriptor: Descriptor,
        threshold: float,
        mae_threshold: float = 15.0,
        train: Tensor | None = None,
        metrics: Mapping[str, Metric] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.references, self.descriptor, self.device = dict(references), descriptor, device
        self.picture: Path | None = None
        self.features = {name: features_of_bank(bank, descriptor, device=device) for name, bank in references.items()}
        self.rows = {name: {_key(bank, i): i for i in range(len(bank))} for name, bank in references.items()}
        self.metrics: dict[str, Metric] = {}
        kinds = {"rp": ReproducibilityScore(threshold), "mae": MAEScore(mae_threshold), **(metrics or {})}
        for reference in references:
            for kind, metric in kinds.items():
                self.metrics[f"{kind}/{reference}"] = metric.clone()
        if train is not None:
            self.metrics["gl"] = GeneralizationScore(
                descriptor.features(train, device=device, title="train"), threshold
            )
        if not self.metrics:
            raise UserError(
                "nothing to score against; give --reference BANK, or data whose images the model was trained on"
            )

    def update(self, seeds: Tensor, images: Tensor, labels: Tensor | None) -> None:
        """Adds a batch: seeds (n,), uint8 images (n k, C, H, W), labels (n k,) or None, k images a seed."""
        keys = seeds.repeat_interleave(len(images) // len(seeds))
        pairs = [(int(seed), None if labels is None else int(labels[i])) for i, seed in enumerate(keys)]
        if labels is not None:
            keys = keys * 2**20 + labels.cpu()
        features = self.descriptor.features(images, device=self.device)
        for name, metric in self.metrics.items():
            if name == "gl":
                metric.update(features, seeds=keys)
                continue
            reference = name.split("/", 1)[1]
            rows = self._rows(reference, pairs)
            numbered = {"seeds": keys} if isinstance(metric, RateMetric) else {}
            if getattr(metric, "inputs", "images") == "images":
                metric.update(images, self.references[reference].images[rows], **numbered)
            else:
                metric.update(features, self.features[reference][rows], **numbered)

    def _rows(self, reference: str, pairs: list[tuple[int, int | None]]) -> Tensor:
        rows = self.rows[reference]
        for pair in pairs:
            if pair not in rows:
                what = f"seed {pair[0]}" if pair[1] is None else f"seed {pair[0]} under class {pair[1]}"
                raise UserError(
                    f"reference {reference} has no {what}; score seeds that it holds, or draw them with repro predict"
                )
        return torch.tensor([rows[pair] for pair in pairs])

    def compute(self) -> dict[str, Tensor]:
        """Every rate by name."""
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def table(self) -> list[tuple[str, float, tuple[float, float] | None, int | None]]:
        """(score, value, Wilson 95 % interval, n) of every score; the last two are None for what is no rate."""
        rows = []
        for name, metric in self.metrics.items():
            if isinstance(metric, RateMetric):
                hits, total = metric.counts()
                rows.append((name, hits / total, metric.interval(), total))
            else:
                rows.append((name, float(metric.compute()), None, None))
        return rows


def _key(bank: Bank, row: int) -> tuple[int, int | None]:
    return int(bank.seeds[row]), None if bank.labels is None else int(bank.labels[row])
