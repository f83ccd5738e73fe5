"""Scores of one model while it is sampled: against reference banks, and against its training images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.banks import Bank
from repro.descriptors.base import Descriptor, features_of_bank
from repro.errors import UserError
from repro.metrics import (
    BetweenReproducibilityScore,
    ConditionalReproducibilityScore,
    GeneralizationScore,
    MAEScore,
    ReproducibilityScore,
)
from repro.metrics.base import RateMetric
from repro.metrics.functional.generalization import nearest_other
from repro.metrics.functional.intervals import wilson_interval
from repro.metrics.functional.similarity import exceeds
from repro.metrics.protocol import feed, is_paired, pair_metrics, pick

__all__ = ["Scores"]


class Scores:
    """RP, MAE and further metrics against each reference, GL against the training images.

    Counts are integers, add up exactly over processes, and hold each noise once. Between conditional models RP also
    comes class by class; between a conditional and an unconditional one the score is between RP.

    Args:
        references: Banks to compare with, by name; each holds at least the seeds that are scored.
        descriptor: Gives the features of RP and GL.
        threshold: Similarity above which two images are the same.
        mae_threshold: Mean absolute difference below which they are, in [0, 255].
        train: Training images, uint8 (N, C, H, W), for GL; None leaves it out.
        metrics: Further metrics by name, copied for each reference: any that :mod:`repro.metrics.protocol` can feed.
        device: Where the descriptor runs.
        labelled: Whether the model draws under labels.
        unseen: Images of the same data that nobody was trained on, uint8 (m, C, H, W): the chance level of GL.

    Attributes:
        written: Where the scores were written to, or None.
        described: Rows of the table on the model itself, of :class:`repro.drawing.described.Described`.
        warning: That the images are of another kind than the descriptor was made for, one line, or None.
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
        labelled: bool = False,
        unseen: Tensor | None = None,
    ) -> None:
        self.written: Path | None = None
        self.warning: str | None = None
        self.described: Sequence[tuple[str, float, tuple[float, float], int]] = ()
        self.gl_by_chance: float | None = None
        self.controls: dict[str, RateMetric] = {}
        self.references, self.descriptor, self.device = dict(references), descriptor, device
        self.picture: Path | None = None
        self.features = {name: features_of_bank(bank, descriptor, device=device) for name, bank in references.items()}
        self.rows = {name: _rows_of(bank, labelled) for name, bank in references.items()}
        self.place = device if torch.device(device).type == "cuda" else "cpu"
        self.metrics: dict[str, Metric] = {}
        self._of: dict[str, str] = {}
        further = pair_metrics(metrics or {}, descriptor.name)
        kinds = {"rp": ReproducibilityScore(threshold), "mae": MAEScore(mae_threshold), **further}
        for reference, bank in references.items():
            if labelled != (bank.labels is not None):
                self._add(f"between_rp/{reference}", BetweenReproducibilityScore(threshold), reference)
                continue
            for kind, metric in kinds.items():
                self._add(f"{kind}/{reference}", metric.clone(), reference)
            if labelled:
                metric = ConditionalReproducibilityScore(bank.manifest.num_classes, threshold)
                self._add(f"conditional_rp/{reference}", metric, reference)
        self.shuffled = {name: _of_next_seed(rows) for name, rows in self.rows.items()}
        if train is not None:
            self._add_training(train, threshold, further)
            if unseen is not None and len(unseen):
                self.controls["gl"] = self.metrics["gl"].clone()
                unseen_features = self.descriptor.features(unseen, device=device, title="unseen").to(self.place)
                self.controls["gl"].update(unseen_features, seeds=range(len(unseen)))
        if not self.metrics:
            raise UserError(
                "nothing to score against; give --reference BANK, or data whose images the model was trained on"
            )

    def _add(self, name: str, metric: Metric, reference: str = "") -> None:
        self.metrics[name] = metric.to(self.place)
        self._of[name] = reference
        if reference and isinstance(metric, RateMetric) and not isinstance(metric, BetweenReproducibilityScore):
            self.controls[name] = metric.clone()

    def _add_training(self, train: Tensor, threshold: float, metrics: Mapping[str, Metric]) -> None:
        """GL, and metrics of whole sets, against the training images; every process has them, each counts once."""
        features = self.descriptor.features(train, device=self.device, title="train").to(self.place)
        self._add("gl", GeneralizationScore(features, threshold))
        if len(features) > 1:
            self.gl_by_chance = 1 - float(exceeds(nearest_other(features), threshold).double().mean())
        for kind, metric in metrics.items():
            if not is_paired(metric):
                name = f"{kind}/training images"
                self._add(name, metric.clone())
                self.metrics[name].update(b=pick(metric, features, train), seeds=range(len(train)))

    def update(self, seeds: Tensor, images: Tensor, labels: Tensor | None) -> None:
        """Adds a batch: seeds (n,), uint8 images (n k, C, H, W), labels (n k,) or None, k images a seed."""
        keys = seeds.repeat_interleave(len(images) // len(seeds))
        self.warning = self.warning or self.descriptor.warning(images)
        pairs = [(int(seed), None if labels is None else int(labels[i])) for i, seed in enumerate(keys)]
        numbers = keys if labels is None else keys * 2**20 + labels.cpu()
        features = self.descriptor.features(images, device=self.device).to(self.place)
        for name, metric in self.metrics.items():
            reference = self._of[name]
            if name == "gl":
                metric.update(features, seeds=numbers)
            elif not reference:
                metric.update(pick(metric, features, images), seeds=numbers)
            elif isinstance(metric, BetweenReproducibilityScore):
                metric.update(*self._plain_and_labelled(reference, seeds, features), seeds=seeds)
            else:
                rows = self._rows(reference, pairs)
                theirs = self.features[reference][rows].to(self.place)
                if isinstance(metric, ConditionalReproducibilityScore):
                    metric.update(features, theirs, labels, seeds=keys)
                    continue
                self._feed(metric, features, images, reference, rows, numbers)
                if name in self.controls:
                    others = torch.tensor([self.shuffled[reference][pair] for pair in pairs])
                    self._feed(self.controls[name], features, images, reference, others, numbers)

    def _feed(
        self, metric: Metric, features: Tensor, images: Tensor, reference: str, rows: Tensor, numbers: Tensor
    ) -> None:
        """Adds images beside those in some rows of a reference to a metric."""
        theirs = self.features[reference][rows].to(self.place)
        other = pick(metric, theirs, self.references[reference].images[rows].to(self.place))
        feed(metric, pick(metric, features, images.to(self.place)), other, numbers)

    def chances(self) -> dict[str, float]:
        """The chance level of every rate that has one: each image beside that of the reference's next noise (and of the
        same class), or, for GL, images that nobody was trained on; where there are none, 1,000 training images beside
        the others.
        """
        by_others = {} if self.gl_by_chance is None else {"gl": self.gl_by_chance}
        counts = {name: metric.counts() for name, metric in self.controls.items()}
        return by_others | {name: hits / total for name, (hits, total) in counts.items()}

    def _rows(self, reference: str, pairs: list[tuple[int, int | None]]) -> Tensor:
        rows = self.rows[reference]
        for pair in pairs:
            if pair not in rows:
                what = f"seed {pair[0]}" if pair[1] is None else f"seed {pair[0]} under class {pair[1]}"
                raise UserError(
                    f"reference {reference} has no {what}; score seeds that it holds, or draw them with repro predict"
                )
        return torch.tensor([rows[pair] for pair in pairs])

    def _plain_and_labelled(self, reference: str, seeds: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features of the unconditional images, (n, d), and of the conditional ones, (n, classes, d)."""
        first = self._rows(reference, [(seed, None) for seed in seeds.tolist()])
        each = torch.arange(self.references[reference].manifest.images_per_seed)
        theirs = self.features[reference][first[:, None] + each].to(self.place)
        if self.references[reference].labels is None:
            return theirs.squeeze(1), features.unflatten(0, (len(seeds), -1))
        return features, theirs

    def compute(self) -> dict[str, Tensor]:
        """Computes every score, by name."""
        return {name: metric.compute() for name, metric in self.metrics.items()}

    def table(self) -> list[tuple[str, float, tuple[float, float] | None, int | None]]:
        """Returns (score, value, 95 % interval, n) of every score; the last two are None for what is no mean.

        Conditional RP comes as its mean and then class by class.
        """
        rows: list[tuple[str, float, tuple[float, float] | None, int | None]] = []
        for name, metric in self.metrics.items():
            if isinstance(metric, RateMetric):
                hits, total = metric.counts()
                rows.append((name, hits / total, metric.interval(), total))
                continue
            rows.append((name, float(metric.compute()), None, None))
            if isinstance(metric, ConditionalReproducibilityScore):
                hits, total = (counts.tolist() for counts in metric.counts())
                rows += [
                    (f"{name}/class {label}", hit / n, wilson_interval(hit, n), n)
                    for label, (hit, n) in enumerate(zip(hits, total, strict=True))
                    if n
                ]
        return [*rows, *self.described]


def _of_next_seed(rows: Mapping[tuple[int, int | None], int]) -> dict[tuple[int, int | None], int]:
    """For each seed and label the row of the next seed under the same label, round in a ring."""
    by_label: dict[int | None, list[int]] = {}
    for seed, label in sorted(rows, key=lambda pair: pair[0]):
        by_label.setdefault(label, []).append(seed)
    return {
        (seed, label): rows[other, label]
        for label, seeds in by_label.items()
        for seed, other in zip(seeds, [*seeds[1:], seeds[0]], strict=True)
    }


def _rows_of(bank: Bank, labelled: bool) -> dict[tuple[int, int | None], int]:
    """Row of each seed and label; of each seed's first image where only one of model and bank has labels."""
    seeds = bank.seeds.tolist()
    if labelled and bank.labels is not None:
        return {pair: row for row, pair in enumerate(zip(seeds, bank.labels.tolist(), strict=True))}
    return {(seeds[row], None): row for row in range(0, len(seeds), bank.manifest.images_per_seed)}
