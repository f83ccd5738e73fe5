"""What must be known before the numbers of a comparison are believed, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from repro.comparison.results import Memorization, PairCounts, Results
from repro.comparison.tables import MOST_PAIRED
from repro.noise import draw_noise

__all__ = ["noise_correlation", "remarks"]

_PASSES = 0.1  # share of shuffled noises that count as alike, from which a threshold tells too little apart
_NEAR_ONE = 0.9
_NOISES = 200  # enough for a correlation to the second digit
_CORRELATION = 0.7  # of trained models on 8 x 8 digits 0.17 to 0.47, of clipped noise above 0.8
_QUANTILE = 0.05


def remarks(results: Results) -> list[str]:
    """Collects what makes a number of these results misleading, most serious first; empty where nothing does."""
    collected = [*results.warnings, *_passed_on(results), *_chance(results), *_far(results), *_foreign(results)]
    if any(score.control is None for score in results.scores.values()):
        collected.append("there is no chance level: a class, or all of it, has one noise only; compare more noises")
    if results.paired is None and len(results.names) > MOST_PAIRED:
        tests = len(results.names) * (len(results.names) - 1) * (len(results.names) - 2) // 2
        collected.append(
            f"paired tests are left out: {len(results.names)} systems have {tests:,} a score; ask for those of one "
            "system with --paired NAME"
        )
    return collected


def _chance(results: Results) -> Iterator[str]:
    """Chance levels that make a rate say little: of a broken model, or of a threshold that everything passes."""
    for score in results.scores.values():
        if (worst := _highest_control(score)) is None:
            continue
        rate, (i, j) = worst
        who = f"{results.names[i]} - {results.names[j]}" if i != j else results.names[i]
        if rate >= _NEAR_ONE:
            yield (
                f"{score.name}: the chance level is near 1: {rate:.3f} of shuffled noises count as alike ({who}). "
                f"Constant or broken images do that, or a threshold that everything passes; this {score.name} says "
                "nothing"
            )
        elif rate >= _PASSES:
            limit = "" if score.threshold is None else f" {score.threshold:g}"
            yield (
                f"{score.name}: unrelated images pass the threshold{limit}: {rate:.3f} of shuffled noises count as "
                f"alike ({who}); choose a stricter one, or read each rate beside its chance level only"
            )


def _highest_control(score: PairCounts) -> tuple[float, tuple[int, int]] | None:
    """The highest chance level and its pair, those of a system with itself under other noises included."""
    rates = score.control_rates
    if rates is None:
        return None
    pair = np.unravel_index(int(np.nanargmax(rates)), rates.shape)
    return float(rates[pair]), (int(pair[0]), int(pair[1]))


def noise_correlation(images: torch.Tensor, seeds: torch.Tensor) -> float:
    """Mean correlation, over pixels, of each image with the noise of its number: 1 for a model that passes it on.

    Args:
        images: uint8 (n, C, H, W).
        seeds: Number of each image's noise, int64 (n,).
    """
    noise = draw_noise(seeds.tolist(), tuple(images.shape[1:])).double().flatten(1)
    pixels = images.double().flatten(1)
    centred = [each - each.mean(1, keepdim=True) for each in (noise, pixels)]
    lengths = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    return float(torch.where(lengths > 0, (centred[0] * centred[1]).sum(1) / lengths, 0.0).abs().mean())


def _passed_on(results: Results) -> Iterator[str]:
    for name, bank in zip(results.names, results.banks, strict=True):
        correlation = noise_correlation(bank.images[:_NOISES], bank.seeds[:_NOISES])
        if correlation > _CORRELATION:
            yield (
                f"{name} passes the noise on: its images have correlation {correlation:.2f} with their own noises; "
                "systems that do so are alike without having learned anything"
            )


def _far(results: Results) -> Iterator[str]:
    """Systems that are further from the training images than these are from each other, and what is alike of them."""
    far = []
    for number, copies in enumerate(results.memorization):
        if copies is not None and (limit := _usual_nearest(copies)) is not None:
            middle = float(np.median(copies.similarity))
            if middle < limit:
                far.append(number)
                yield (
                    f"{results.names[number]} is far from its training images: half of its images are less than "
                    f"{middle:.2f} similar to the nearest, 95 % of the training images more than {limit:.2f} to "
                    "another one; its GL is high without being a merit"
                )
    rp, mae = results.scores.get("RP"), results.scores.get("MAE")
    if rp is None or mae is None:
        return
    for i, j in rp.pairs():
        if {i, j} <= {*far} and rp.rates[i, j] >= 0.5 > mae.rates[i, j]:
            yield (
                f"{results.names[i]} and {results.names[j]} have RP {rp.rates[i, j]:.3f} but MAE score "
                f"{mae.rates[i, j]:.3f}, far from the data: they may pass on what they were given rather than agree "
                "on images"
            )


def _usual_nearest(copies: Memorization) -> float | None:
    unseen = copies.chance.get("unseen", ())
    return float(np.quantile(unseen, _QUANTILE)) if len(unseen) >= 20 else None


def _foreign(results: Results) -> Iterator[str]:
    """Images of which nothing says that they were drawn from the numbered noises."""
    names = [name for name, bank in zip(results.names, results.banks, strict=True) if bank.manifest.model is None]
    if names:
        shown = ", ".join(names[:3]) + (" and others" if len(names) > 3 else "")
        yield (
            f"nothing says that the images of {shown} share noises with the others: RP and MAE take image i as drawn "
            "from noise i"
        )
