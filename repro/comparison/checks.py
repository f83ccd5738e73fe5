"""Checks of the systems that are compared: of what their banks say before anything is drawn, then of the banks."""

from __future__ import annotations

import json
from collections.abc import Sequence

import torch

from repro.banks import Bank, format_seeds
from repro.drawing.systems import System
from repro.errors import UserError
from repro.noise import parse_seeds

__all__ = ["alike_banks", "check_systems"]


def check_systems(systems: Sequence[System], steered: bool) -> None:
    """Checks that systems can be compared, from their manifests alone.

    Args:
        systems: Two or more.
        steered: Whether guidance or classes were asked for.

    Raises:
        UserError: fewer than two, images of other shapes, or drawn for other problems; no model with classes to steer.
    """
    if len(systems) < 2:
        raise UserError(
            f"{len(systems)} bank given; name at least two banks, runs or checkpoints: repro compare BANK BANK ..."
        )
    if steered and not any(system.drawn and system.manifest.num_classes for system in systems):
        raise UserError("guidance and classes are for checkpoints with classes, and there is none; leave them out")
    first = systems[0]
    for system in systems:
        manifest = system.manifest
        if manifest.image_shape != first.manifest.image_shape:
            raise UserError(
                f"bank {system.name!r} holds images of shape {manifest.image_shape}, {first.name!r} of "
                f"{first.manifest.image_shape}; compare images of one size and number of channels: draw or save one of "
                "them at the size of the other"
            )
        for key in first.manifest.extra.keys() & manifest.extra.keys():
            there, here = (json.dumps(each.extra[key])[:60] for each in (first.manifest, manifest))
            if first.manifest.extra[key] != manifest.extra[key]:
                raise UserError(
                    f"{key.replace('_', ' ')} of bank {system.name!r} is {here}, of {first.name!r} {there}; "
                    "draw them alike"
                )


def alike_banks(banks: Sequence[Bank], names: Sequence[str], seeds: str | Sequence[int] | None) -> list[Bank]:
    """Returns the banks, with the chosen seeds only, checked to hold the same noises and labels.

    Raises:
        UserError: a bank that is incomplete, or lacks a chosen seed; other seeds or labels.
    """
    for bank, name in zip(banks, names, strict=True):
        if not bank.complete and seeds is None:
            total = len(bank.manifest.seeds) * bank.manifest.images_per_seed
            raise UserError(
                f"bank {name!r} is incomplete: {len(bank)} of {total} images; continue it with repro predict, "
                "or compare the seeds that all banks have with --seeds"
            )
    chosen = list(banks) if seeds is None else [bank.select(parse_seeds(seeds)) for bank in banks]
    first = chosen[0]
    labelled = [(bank.labels, name) for bank, name in zip(chosen, names, strict=True) if bank.labels is not None]
    for bank, name in zip(chosen, names, strict=True):
        if _noises(bank) != _noises(first):
            common = sorted({*bank.seeds.tolist()} & {*first.seeds.tolist()})
            hint = f"compare those in common with --seeds {format_seeds(common)[:60]}, or " if common else ""
            raise UserError(
                f"bank {name!r} holds seeds {_brief(bank)}, {names[0]!r} {_brief(first)}; "
                f"{hint}draw the same seeds with repro predict --seeds"
            )
        if bank.labels is not None and not torch.equal(bank.labels, labelled[0][0]):
            raise UserError(f"banks {name!r} and {labelled[0][1]!r} were drawn under different labels; draw them alike")
    return chosen


def _noises(bank: Bank) -> list[int]:
    return bank.seeds[:: bank.manifest.images_per_seed].tolist()


def _brief(bank: Bank) -> str:
    text = format_seeds(_noises(bank))
    return text if len(text) <= 40 else f"{text[:37]}..."
