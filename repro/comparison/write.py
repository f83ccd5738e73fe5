"""A comparison as files and as entries of a TensorBoard log."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from repro.comparison.figures import figures
from repro.comparison.record import record
from repro.comparison.results import Results
from repro.comparison.tables import gl, pairs, tables, values
from repro.comparison.text import as_text
from repro.files import csv_text, make_folder, write_text, write_whole
from repro.plots import rendered, save_figure

__all__ = ["log_results", "write_results"]


def write_results(results: Results, folder: Path, draw: bool = True) -> list[Path]:
    """Writes every table, the record and every figure into a folder.

    Args:
        results: What was compared.
        folder: Made where it is missing.
        draw: Also write the figures.

    Returns:
        The files.
    """
    make_folder(folder)
    written = []
    for name, rows in tables(results):
        written.append(folder / f"{_slug(name)}.csv")
        write_text(written[-1], csv_text(rows))
    if any(copies is not None for copies in results.memorization):
        written.append(folder / "nearest.npz")
        _write_nearest(results, written[-1])
    written.append(folder / "comparison.json")
    write_text(written[-1], json.dumps(record(results), indent=1))
    for name, figure in figures(results) if draw else ():
        written.append(folder / f"{_slug(name)}.png")
        save_figure(figure, written[-1])
    return written


def _slug(name: str) -> str:
    """The name of a score or table as that of a file."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


def _write_nearest(results: Results, path: Path) -> None:
    """Arrays ``<number>_index`` and ``<number>_similarity`` of each system with training images, and ``names``."""
    arrays: dict[str, np.ndarray] = {"names": np.asarray(results.names)}
    for number, copies in enumerate(results.memorization):
        if copies is not None:
            arrays |= {f"{number}_index": copies.index, f"{number}_similarity": copies.similarity}
    with write_whole(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def log_results(results: Results, logdir: Path, step: int = 0) -> None:
    """Adds rates as scalars, figures as images and the tables as text to a TensorBoard log."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(logdir)) as writer:
        for row in pairs(results):
            writer.add_scalar(f"{row['score']}/{row['first']} - {row['second']}", row["rate"], step)
        for row in gl(results):
            writer.add_scalar(f"GL/{row['system']}", row["rate"], step)
        for row in values(results):
            writer.add_scalar(f"{row['score']}/{row['first']} - {row['second']}", row["value"], step)
        for name, figure in figures(results):
            writer.add_image(f"comparison/{_slug(name)}", rendered(figure), step, dataformats="HWC")
        text = "\n".join(f"    {line}" for line in as_text(results).splitlines())
        writer.add_text("comparison", text, step)
