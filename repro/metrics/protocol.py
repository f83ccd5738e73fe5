"""How a comparison feeds a metric: one protocol for the scores here, plug-ins and every other ``torchmetrics.Metric``.

A metric compares two systems when the first two arguments of its ``update`` are what each of them drew, and it gives
one number. What it is given, its class may say; without that, metrics from elsewhere fit as they are:

``inputs``
    ``features`` of the comparison's descriptor, float32 (n, d), or ``images``, uint8 (n, C, H, W), also when the class
    says nothing. Metrics of torchmetrics itself compute in the dtype that they are given, where uint8 would overflow:
    they get the images as float32 in [0, 255]; build them with ``data_range=255.0``. ``model``: no comparison takes it;
    ``repro test`` does, to describe one model on images of its data, by ``update(denoiser, images, labels, seeds)``,
    ``compute()``, ``interval()`` and ``count``.
``paired``
    False when row i of one side has nothing to do with row i of the other; such a metric has no shuffled control, and
    is also computed against training images. True when the class says nothing.
``label(descriptor)``
    Name in tables; the class's name when there is no such method.

A :class:`~repro.metrics.base.RateMetric` is given the noises' numbers, and has counts and intervals.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from repro.errors import UserError
from repro.metrics.base import RateMetric
from repro.metrics.distances import SetMetric
from repro.registry import build, load

__all__ = ["feed", "is_paired", "metric_value", "model_metrics", "of_model", "pair_metrics", "pick", "value_of"]

_BATCH = 1024


def pair_metrics(metrics: Sequence[str | Metric] | Mapping[str, Metric], descriptor: str) -> dict[str, Metric]:
    """Returns metrics that compare two systems, by the name of their score.

    Args:
        metrics: Registered names (group ``metrics``), or metrics, or a mapping from names of scores to metrics; a score
            named after its class gets the name that the metric gives itself.
        descriptor: Name of the descriptor whose features they get.

    Raises:
        UserError: a name that is not registered or needs arguments, or a metric that compares no pairs.
    """
    named: list[tuple[str | None, Any]] = (
        list(metrics.items()) if isinstance(metrics, Mapping) else [(None, item) for item in metrics]
    )
    by_name: dict[str, Metric] = {}
    for key, item in named:
        metric = _checked(_built(item) if isinstance(item, str) else item)
        name = key if key is not None and key != type(metric).__name__ else _label(metric, descriptor)
        same = sum(other == name or other.startswith(f"{name} (") for other in by_name)
        by_name[f"{name} ({same + 1})" if same else name] = metric
    return by_name


def _built(name: str) -> Metric:
    try:
        return build("metrics", name)
    except TypeError as error:
        raise UserError(f"metric {name} cannot be built by its name alone ({error}); give an object") from error


def _checked(metric: Any) -> Metric:
    name = type(metric).__name__
    if not isinstance(metric, Metric):
        raise UserError(f"metric {name} is no torchmetrics.Metric; give a metric or a registered name")
    if of_model(metric):
        raise UserError(f"metric {name} is of one model, not of two; type repro test --metric {name}")
    arguments = [
        item
        for item in inspect.signature(metric.update).parameters.values()
        if item.kind in (item.POSITIONAL_ONLY, item.POSITIONAL_OR_KEYWORD) and item.name != "seeds"
    ]
    required = [item.name for item in arguments if item.default is item.empty]
    flag = len(arguments) > 1 and arguments[1].annotation in (bool, "bool")
    if len(arguments) < 2 or len(required) > 2 or flag:
        raise UserError(
            f"metric {name} compares no pairs: its update takes ({', '.join(item.name for item in arguments)}), not "
            "what two systems drew; a comparison takes PairMetric, SetMetric or another torchmetrics.Metric of two sets"
        )
    return metric


def of_model(metric: Metric) -> bool:
    """Says whether a metric describes one model, rather than what two systems drew."""
    return getattr(metric, "inputs", None) == "model"


def model_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Builds those of the registered metrics that describe one model, by their own names."""
    return {name: build("metrics", name) for name in dict.fromkeys(names) if of_model(load("metrics", name))}


def _label(metric: Metric, descriptor: str) -> str:
    return metric.label(descriptor) if hasattr(metric, "label") else type(metric).__name__


def is_paired(metric: Metric) -> bool:
    """Says whether row i of one side belongs to row i of the other."""
    return getattr(metric, "paired", True)


def pick(metric: Metric, features: Any, images: Any) -> Any:
    """Chooses between features and images: what the metric looks at."""
    return features if getattr(metric, "inputs", None) == "features" else images


def feed(metric: Metric, a: Tensor, b: Tensor, seeds: Iterable[int] | Tensor | None = None) -> None:
    """Updates a metric with what two systems drew.

    Args:
        metric: One of :func:`pair_metrics`.
        a: Of the first system: features (n, d) or uint8 images (n, C, H, W), as :func:`pick` chose.
        b: Of the second; in the same order, or another set when the metric is not paired.
        seeds: Number of each row's noise, for metrics that count.
    """
    if isinstance(metric, RateMetric):
        metric.update(a, b, seeds=seeds)
    elif isinstance(metric, SetMetric):
        metric.update(a, seeds=seeds)
        metric.update(b=b, seeds=seeds if len(a) == len(b) else None)
    else:
        convert = type(metric).__module__.startswith("torchmetrics.") and a.dtype == torch.uint8
        for x, y in zip(a.split(_BATCH), b.split(_BATCH), strict=True):
            metric.update(x.float() if convert else x, y.float() if convert else y)


def value_of(metric: Metric, name: str) -> float:
    """Reads the one number that a metric gives.

    Raises:
        UserError: it gives another shape.
    """
    value = torch.as_tensor(metric.compute())
    if value.numel() != 1:
        raise UserError(f"metric {name} gives {tuple(value.shape)} numbers; a comparison takes metrics that give one")
    return float(value)


def metric_value(metric: Metric, name: str, a: Tensor, b: Tensor) -> float:
    """Computes a metric on two sets; the metric itself is not changed.

    Args:
        metric: One of :func:`pair_metrics`.
        name: Its name in messages.
        a: Of the first system, as in :func:`feed`.
        b: Of the second.

    Raises:
        UserError: what the metric refuses, with its name.
    """
    fresh = metric.clone()
    fresh.reset()
    try:
        feed(fresh, a, b)
        return value_of(fresh, name)
    except UserError as error:
        raise UserError(f"metric {name}: {error}") from error
