"""A comparison as files, figures and TensorBoard entries."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from repro.comparison.text import as_text, condition, gl_condition
from repro.errors import UserError
from repro.files import write_text, write_whole
from repro.plots import curve_chart, heat_map, image_grid, nearest_grid, rate_chart, rendered, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from repro.comparison.results import Comparison, PairCounts

__all__ = ["comparison_figures", "log_comparison", "write_comparison"]

_GRID_ROWS = 10
_NEAREST = 10


def write_comparison(comparison: Comparison, folder: Path, figures: bool = True) -> list[Path]:
    """Writes tables, record and figures; see :meth:`repro.comparison.Comparison.write`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {folder}: {error.strerror}; name another one") from error
    written: list[Path] = []
    for name, score in comparison.scores.items():
        table = [["" if np.isnan(rate) else rate for rate in rates] for rates in score.rates.tolist()]
        rows = [[system, *rates] for system, rates in zip(comparison.names, table, strict=True)]
        _write_csv(folder / f"{_slug(name)}.csv", ["system", *comparison.names], rows, written)
    tables = {
        "pairs": comparison.table(),
        "conditional": comparison.conditional_table(),
        "values": comparison.value_table(),
        "curves": comparison.curve_table(),
        "paired": comparison.paired_table(),
        "gl": comparison.memorization_table(),
    }
    for name, rows in tables.items():
        if rows:
            _write_rows(folder / f"{name}.csv", rows, written)
    if tables["gl"]:
        _write_nearest(comparison, folder / "nearest.npz", written)
    write_text(folder / "comparison.json", json.dumps(comparison.record(), indent=1))
    written.append(folder / "comparison.json")
    if figures:
        for name, figure in comparison_figures(comparison):
            save_figure(figure, folder / f"{name}.png")
            written.append(folder / f"{name}.png")
    return written


def _slug(name: str) -> str:
    """A score's name as that of a file."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _write_rows(path: Path, rows: list[dict[str, Any]], written: list[Path]) -> None:
    _write_csv(path, list(rows[0]), [list(row.values()) for row in rows], written)


def _write_csv(path: Path, head: list[str], rows: Iterable[list[Any]], written: list[Path]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())
    written.append(path)


def _write_nearest(comparison: Comparison, path: Path, written: list[Path]) -> None:
    """Arrays ``<place>_index`` and ``<place>_similarity`` of each system with training images, and ``names``."""
    arrays: dict[str, np.ndarray] = {"names": np.asarray(comparison.names)}
    for place, found in enumerate(comparison.memorization):
        if found is not None:
            arrays |= {f"{place}_index": found.index, f"{place}_similarity": found.similarity}
    with write_whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)
    written.append(path)


def comparison_figures(comparison: Comparison) -> Iterator[tuple[str, Figure]]:
    """The figures by file name: a heat map a score, the grid, GL and the nearest training images."""
    named = {"RP": "Reproducibility (RP)", "MAE": "MAE score"}
    for name, score in comparison.scores.items():
        yield (
            _slug(name),
            heat_map(
                score.rates,
                comparison.names,
                named.get(name, name),
                condition(comparison, score)
                + ("; below the diagonal: shuffled noises" if score.control is not None else ""),
                score.control_rates,
            ),
        )
    images, rows = _grid(comparison)
    yield (
        "grid",
        image_grid(images, comparison.names, rows, "Same noise, different systems", "one row a noise, by seed"),
    )
    for name, score in comparison.scores.items():
        if score.sense == ">":
            yield f"{_slug(name)}_curve", _curves(comparison, score, f"{named.get(name, name)} by threshold")
    known = [place for place, found in enumerate(comparison.memorization) if found is not None]
    if known:
        yield from _memorization_figures(comparison, known)


def _curves(comparison: Comparison, score: PairCounts, title: str) -> Figure:
    pairs = score.pairs()
    rates = [score.curve(*pair) / score.totals[pair] for pair in pairs]
    chance = [score.curve(*pair, control=True) / score.totals[pair] for pair in pairs if score.control is not None]
    names = [f"{comparison.names[i]} - {comparison.names[j]}" for i, j in pairs]
    below = "; grey: shuffled noises" if chance else ""
    subtitle = f"{comparison.descriptor['name']}, n = {score.n:,}{below}"
    return curve_chart(score.thresholds(), rates, names, title, subtitle, chance, score.threshold)


def _grid(comparison: Comparison) -> tuple[torch.Tensor, list[str]]:
    """Images in rows and systems, and the rows' names: a noise a row, of conditional systems a noise and class."""
    mixed = len({bank.manifest.images_per_seed for bank in comparison.banks}) > 1
    count = min(_GRID_ROWS, comparison.n)
    images, rows = [], []
    for place, bank in enumerate(comparison.banks):
        chosen = torch.arange(count)
        if mixed and bank.labels is not None:
            pair, found = next(item for item in comparison.scores["Between RP"].outcomes.items() if place in item[0])
            chosen = torch.from_numpy((found.first if pair[0] == place else found.second)[:count])
        images.append(bank.images[chosen])
    first = comparison.banks[0]
    for row in range(count):
        label = "" if first.labels is None or mixed else f", class {int(first.labels[row])}"
        rows.append(f"{int(first.seeds[row * (first.manifest.images_per_seed if mixed else 1)])}{label}")
    return torch.stack(images, dim=1), rows


def _memorization_figures(comparison: Comparison, known: list[int]) -> Iterator[tuple[str, Figure]]:
    found = [comparison.memorization[place] for place in known]
    names = [comparison.names[place] for place in known]
    label = "share of samples that are no copy of a training image"
    rates, intervals = [item.rate for item in found], [item.interval() for item in found]
    yield "gl", rate_chart(rates, intervals, names, "Generalization (GL)", gl_condition(comparison), label)
    shown = min(_NEAREST, comparison.n)
    yield (
        "nearest",
        nearest_grid(
            [comparison.banks[place].images[:shown] for place in known],
            [
                comparison.train[place][torch.from_numpy(item.index[:shown])]
                for place, item in zip(known, found, strict=True)
            ],
            [item.similarity[:shown].tolist() for item in found],
            names,
            "Samples and their nearest training images",
            f"above: sample; below: nearest training image and its similarity, {comparison.descriptor['name']}",
        ),
    )


def log_comparison(comparison: Comparison, logdir: Path, step: int = 0) -> None:
    """Adds rates as scalars, figures as images and the tables as text to a TensorBoard log."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logdir)) as writer:
        for row in comparison.table():
            writer.add_scalar(f"{row['score']}/{row['first']} - {row['second']}", row["rate"], step)
        for row in comparison.memorization_table():
            writer.add_scalar(f"GL/{row['system']}", row["rate"], step)
        for row in comparison.value_table():
            writer.add_scalar(f"{row['score']}/{row['first']} - {row['second']}", row["value"], step)
        for name, figure in comparison_figures(comparison):
            writer.add_image(f"comparison/{name}", rendered(figure), step, dataformats="HWC")
        text = "\n".join(f"    {line}" for line in as_text(comparison).splitlines())
        writer.add_text("comparison", text, step)
