"""A comparison as text, files, figures and TensorBoard entries."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from repro.errors import UserError
from repro.figures import heat_map, image_grid, nearest_grid, rate_chart, rendered, save_figure
from repro.files import write_text, write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from repro.comparison.results import Comparison, PairCounts

__all__ = ["as_text", "comparison_figures", "log_comparison", "write_comparison"]

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
        rows = [[system, *rates] for system, rates in zip(comparison.names, score.rates.tolist(), strict=True)]
        _write_csv(folder / f"{name.lower()}.csv", ["system", *comparison.names], rows, written)
    _write_rows(folder / "pairs.csv", comparison.table(), written)
    if memorization := comparison.memorization_table():
        _write_rows(folder / "gl.csv", memorization, written)
        _write_nearest(comparison, folder / "nearest.npz", written)
    write_text(folder / "comparison.json", json.dumps(comparison.record(), indent=1))
    written.append(folder / "comparison.json")
    if figures:
        for name, figure in comparison_figures(comparison):
            save_figure(figure, folder / f"{name}.png")
            written.append(folder / f"{name}.png")
    return written


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
            name.lower(),
            heat_map(
                score.rates,
                comparison.names,
                named.get(name, name),
                _condition(comparison, name)
                + ("; below the diagonal: shuffled noises" if score.control is not None else ""),
                score.control_rates,
            ),
        )
    rows = min(_GRID_ROWS, comparison.n)
    images = torch.stack([bank.images[:rows] for bank in comparison.banks], dim=1)
    seeds = [str(seed) for seed in comparison.banks[0].seeds[:rows].tolist()]
    yield (
        "grid",
        image_grid(images, comparison.names, seeds, "Same noise, different systems", "one row a noise, by seed"),
    )
    known = [place for place, found in enumerate(comparison.memorization) if found is not None]
    if known:
        yield from _memorization_figures(comparison, known)


def _memorization_figures(comparison: Comparison, known: list[int]) -> Iterator[tuple[str, Figure]]:
    found = [comparison.memorization[place] for place in known]
    names = [comparison.names[place] for place in known]
    label = "share of samples that are no copy of a training image"
    rates, intervals = [item.rate for item in found], [item.interval() for item in found]
    yield "gl", rate_chart(rates, intervals, names, "Generalization (GL)", _condition(comparison, "RP"), label)
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


def _condition(comparison: Comparison, score: str) -> str:
    limits = {
        "RP": f"{comparison.descriptor['name']} > {comparison.threshold:g}, ",
        "MAE": f"mean difference < {comparison.mae_threshold:g} of 255, ",
    }
    return f"{limits.get(score, '')}n = {comparison.n:,}"


def log_comparison(comparison: Comparison, logdir: Path, step: int = 0) -> None:
    """Adds rates as scalars, figures as images and the tables as text to a TensorBoard log."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logdir)) as writer:
        for row in comparison.table():
            writer.add_scalar(f"{row['score']}/{row['first']} - {row['second']}", row["rate"], step)
        for row in comparison.memorization_table():
            writer.add_scalar(f"GL/{row['system']}", row["rate"], step)
        for name, figure in comparison_figures(comparison):
            writer.add_image(f"comparison/{name}", rendered(figure), step, dataformats="HWC")
        text = "\n".join(f"    {line}" for line in as_text(comparison).splitlines())
        writer.add_text("comparison", text, step)


def as_text(comparison: Comparison) -> str:
    """Matrices with intervals and chance level, and GL, as tables for a terminal of any width."""
    from rich.console import Console
    from rich.table import Table

    tables: list[Table] = [_matrix(comparison, score) for score in comparison.scores.values()]
    rows = comparison.memorization_table()
    if rows:
        table = Table(
            title=f"GL: share of samples that are no copy of a training image ({_condition(comparison, 'RP')})"
        )
        for head in ("system", "GL", "95 % interval", "not copied", "training images", "mean nearest"):
            table.add_column(head, justify="left" if head == "system" else "right")
        for row in rows:
            counted = f"{row['count']:,} of {row['n']:,}"
            table.add_row(
                row["system"],
                f"{row['rate']:.3f}",
                _span(row),
                counted,
                f"{row['train_size']:,}",
                f"{row['mean_nearest']:.3f}",
            )
        tables.append(table)
    for table in tables:
        table.title_justify = "left"
    console = Console(width=10_000, record=True, file=io.StringIO(), color_system=None, highlight=False)
    width = max(console.measure(table).maximum for table in tables)
    console.width = max(width, 80)
    for table in tables:
        console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def _span(row: Mapping[str, Any], prefix: str = "") -> str:
    return f"{row[prefix + 'low']:.3f}-{row[prefix + 'high']:.3f}"


def _matrix(comparison: Comparison, score: PairCounts) -> Any:
    """Above the diagonal the rate over its interval, below it the control's."""
    from rich.table import Table

    below = "" if score.control is None else "; below the diagonal: shuffled noises (chance)"
    table = Table(title=f"{score.name} ({_condition(comparison, score.name)}; second line: 95 % interval{below})")
    table.add_column("")
    cells = {(row["first"], row["second"]): row for row in comparison.table() if row["score"] == score.name}
    for name in comparison.names:
        table.add_column(name, justify="center", no_wrap=True)
    for first in comparison.names:
        line = [first]
        for second in comparison.names:
            if (row := cells.get((first, second))) is not None:
                line.append(f"{row['rate']:.3f}\n{_span(row)}")
            elif (row := cells.get((second, first))) is not None and "control_rate" in row:
                line.append(f"{row['control_rate']:.3f}\n{_span(row, 'control_')}")
            else:
                line.append("" if row is not None else "-")
        table.add_row(*line)
    return table
