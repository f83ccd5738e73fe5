"""A comparison as one self-contained HTML page: matrices to click, the pairs behind each cell, nearest training images.

The page needs no network and no file beside it, its policy lets no other script run, and whatever names the banks have
stay text. The place shown is in the address: ``report.html#score=RP&cell=0,1``.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import NormalDist
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from repro.banks import format_seeds
from repro.comparison import tables
from repro.comparison.remarks import remarks
from repro.comparison.report.sheets import Sheets, fitting_sheets
from repro.comparison.results import Memorization, PairCounts, Results
from repro.comparison.text import condition, gl_condition
from repro.errors import UserError
from repro.files import make_folder, write_text

__all__ = ["check_report_path", "write_report"]

_TITLES = {
    "RP": ("Reproducibility (RP)", "Share of noises from which two systems draw the same image"),
    "MAE": ("MAE score", "Share of noises whose two images differ by little in their pixels"),
    "Between RP": ("Between RP", "Share of noises from which some class gives the unconditional system's image"),
}

_ENDS = {
    ">": ("Most similar", "Least similar"),
    "<": ("Smallest difference", "Largest difference"),
    "": ("Alike", "Not alike"),
}


def check_report_path(path: str | os.PathLike[str]) -> Path:
    """Checks that a report can be written at a path, and returns the path.

    Raises:
        UserError: it is a folder, or it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"report {path} is a folder; name a file: {path / 'report.html'}")
    make_folder(path.parent)
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError(f"cannot write report {path}: no permission; name another file")
    return path


def write_report(results: Results, path: Path, megabytes: float = 10.0) -> Path:
    """Writes the page of a comparison, whole or not at all.

    Args:
        results: What :func:`repro.comparison.compare` found.
        path: The HTML file.
        megabytes: Most that the images in it may take; fewer pairs a cell are shown where that is not enough, and then
            compressed ones.

    Returns:
        The path.

    Raises:
        UserError: the path is a folder or cannot be written, or ``megabytes`` is not positive.
    """
    path = check_report_path(path)
    if not megabytes > 0:
        raise UserError(f"megabytes is {megabytes}; give the images of a report room, 10 is usual")
    sheets = fitting_sheets(results, megabytes * 1e6)
    write_text(path, _page(_title(results), _data(results, sheets)))
    return path


def _page(title: str, data: dict[str, Any]) -> str:
    """The page from its template; its policy lets only this style and this script run."""
    loader = jinja2.PackageLoader("repro.comparison.report", "")
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    style, script = (loader.get_source(templates, name)[0] for name in ("page.css", "page.js"))
    return templates.get_template("page.html").render(
        title=title,
        style=Markup(style),
        script=Markup(script),
        hashes={"style-src": _hash(style), "script-src": _hash(script)},
        data=data,
    )


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _title(results: Results) -> str:
    return f"Comparison of {len(results.names)} systems"


def _data(results: Results, sheets: Sheets) -> dict[str, Any]:
    first = results.banks[0].manifest
    seeds = format_seeds(first.seeds)
    classes = f", {results.classes} classes" if results.classes else ""
    shape = "x".join(str(size) for size in first.image_shape)
    return {
        "names": results.names,
        "summary": f"{results.noises:,} noises (seeds {seeds[:60]}{'...' if len(seeds) > 60 else ''}){classes}, "
        f"images {shape}, descriptor {results.descriptor['name']}, threshold {results.threshold:g}, "
        f"{results.conditions.data}",
        "foot": f"repro {first.repro_version}. Intervals are Wilson's, {results.conditions.percent}. {sheets.about}",
        "threshold": results.threshold,
        "z": NormalDist().inv_cdf((1 + results.conditions.confidence) / 2),
        "percent": results.conditions.percent,
        "tile": sheets.size,
        "sheets": sheets.record(),
        "scores": _scores(results, sheets),
        "values": [
            {
                "name": score.name,
                "values": _plain(score.values),
                "control": None if score.control is None else _plain(score.control),
                "train": None if score.train is None or np.isnan(score.train).all() else _plain(score.train),
            }
            for score in results.values.values()
        ],
        "remarks": remarks(results),
        "gl": list(_memorization(results, sheets)),
        "gl_condition": f"Share of samples that are no copy of a training image: {gl_condition(results)}.",
        "banks": [_bank(results, index) for index in range(len(results.names))],
    }


def _plain(values: np.ndarray) -> Any:
    """Nested lists with None for NaN."""
    return np.where(np.isnan(values), None, values.astype(object)).tolist()


def _scores(results: Results, sheets: Sheets) -> list[dict[str, Any]]:
    index_of = {name: number for number, name in enumerate(results.names)}
    pairs, classes, tests = (
        [
            {key: index_of[value] if key in ("system", "first", "second") else value for key, value in row.items()}
            for row in rows
        ]
        for rows in (tables.pairs(results), tables.conditional(results), tables.paired(results))
    )
    entries = []
    for score in results.scores.values():
        cells = []
        for row in pairs:
            if row["score"] == score.name:
                pair = row["first"], row["second"]
                own = {"first": pair[0], "second": pair[1], "score": score.name}
                by_class = [each for each in classes if own.items() <= each.items()]
                cells.append(row | {"classes": by_class} | _cell(results, score, pair, sheets))
        entries.append(
            _facts(results, score) | {"cells": cells, "tests": [row for row in tests if row["score"] == score.name]}
        )
    return entries


def _facts(results: Results, score: PairCounts) -> dict[str, Any]:
    title, about = _TITLES.get(score.name, (score.name, ""))
    most, least = _ENDS[score.sense]
    return {
        "name": score.name,
        "title": title,
        "about": about,
        "condition": condition(results, score),
        "controlled": score.control is not None,
        "sense": score.sense,
        "share": "share of noises" if score.n == results.noises else "share of noises and classes",
        "axis": "similarity threshold" if score.sense == ">" else "threshold of the mean difference, of 255",
        "most": most,
        "least": least,
        "threshold": score.threshold,
        "thresholds": score.thresholds(),
    }


def _cell(results: Results, score: PairCounts, pair: tuple[int, int], sheets: Sheets) -> dict[str, Any]:
    """The curve and the images behind a cell."""
    most, least = ([_pair(results, score, pair, row) for row in rows] for rows in sheets.pairs[score.name, pair])
    if not score.sense:
        return {"most": most, "least": least}
    control = None if score.control is None else score.curve(*pair, control=True).tolist()
    return {"most": most, "least": least, "curve": score.curve(*pair).tolist(), "control_curve": control}


def _pair(results: Results, score: PairCounts, pair: tuple[int, int], row: int) -> dict[str, Any]:
    outcome = score.outcomes[pair]
    places = outcome.rows(row)
    banks = [results.banks[index] for index in pair]
    labels = {int(bank.labels[at]) for bank, at in zip(banks, places, strict=True) if bank.labels is not None}
    return {
        "rows": places,
        "value": None if outcome.values is None else float(outcome.values[row]),
        "match": bool(outcome.matches[row]),
        "who": f"seed {int(banks[0].seeds[places[0]])}",
        "of": ", ".join(f"class {label}" for label in sorted(labels)),
    }


def _memorization(results: Results, sheets: Sheets) -> Iterator[dict[str, Any]]:
    rows = {row["system"]: row for row in tables.gl(results)}
    for index, (name, copies) in enumerate(zip(results.names, results.memorization, strict=True)):
        if copies is not None:
            yield rows[name] | {
                "system": index,
                "train": sheets.train_of[index],
                "thresholds": copies.thresholds(),
                "curve": copies.curve(),
                "most": [_nearest(results, index, copies, row) for row in sheets.nearest[index][0]],
                "least": [_nearest(results, index, copies, row) for row in sheets.nearest[index][1]],
            }


def _nearest(results: Results, index: int, copies: Memorization, row: int) -> dict[str, Any]:
    bank = results.banks[index]
    label = "" if bank.labels is None else f"class {int(bank.labels[row])}, "
    return {
        "rows": [int(row), int(copies.index[row])],
        "value": float(copies.similarity[row]),
        "copy": bool(copies.copies[row]),
        "who": f"seed {int(bank.seeds[row])}",
        "of": f"{label}image {int(copies.index[row])}",
    }


def _bank(results: Results, index: int) -> dict[str, Any]:
    bank = results.banks[index]
    manifest = bank.manifest.record()
    named = {key: (manifest[key] or {}).get("name", "") for key in ("model", "sampler", "kernel", "data")}
    facts = {
        "folder": "" if bank.path is None else str(bank.path),
        "images": f"{len(bank):,}",
        "seeds": manifest["seeds"][:200],
        "task": manifest["task"],
        **named,
        "drawn by": manifest["source"],
        "content": f"SHA-256 {bank.fingerprint}",
        "weights": manifest["model_fingerprint"],
    }
    return {
        "name": results.names[index],
        "line": ", ".join(value for value in (*named.values(), manifest["task"]) if value),
        "facts": {key: str(value) for key, value in facts.items() if value},
        "manifest": manifest,
    }
