"""A comparison as one self-contained HTML page: matrices to click, the pairs behind each cell, nearest training images.

The page needs no network and no file beside it, its policy lets no other script run, and whatever names the banks have
stay text. The place shown is in the address: ``report.html#score=RP&cell=0,1``.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import numpy as np

from repro.banks import format_seeds
from repro.comparison.sheets import Sheets, fitting_sheets
from repro.comparison.text import condition, gl_condition
from repro.errors import UserError
from repro.files import write_text

if TYPE_CHECKING:
    from repro.comparison.results import Comparison, Memorization, Outcomes, PairCounts

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
    """The path of a report, in a folder that is there or can be made.

    Raises:
        UserError: it is a folder, or it cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"report {path} is a folder; name a file: {path / 'report.html'}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder of report {path}: {error.strerror}; name another file") from error
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UserError(f"cannot write report {path}: no permission; name another file")
    return path


def write_report(comparison: Comparison, path: Path, megabytes: float = 10.0) -> Path:
    """Writes the page of a comparison, whole or not at all.

    Args:
        comparison: What :func:`repro.comparison.compare` found.
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
    sheets = fitting_sheets(comparison, megabytes * 1e6)
    write_text(path, _page(_title(comparison), _data(comparison, sheets)))
    return path


def _page(title: str, data: dict[str, Any]) -> str:
    style, script, page = (_part(name) for name in ("page.css", "page.js", "page.html"))
    hashes = {
        name: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in {"style-src": style, "script-src": script}.items()
    }
    rules = "; ".join(f"{name} 'sha256-{value}'" for name, value in hashes.items())
    policy = f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; {rules}"
    return Template(page).substitute(
        policy=policy, title=html.escape(title), style=style, script=script, data=_escaped(data)
    )


def _part(name: str) -> str:
    return (files("repro.comparison") / "page" / name).read_text(encoding="utf-8")


def _escaped(data: dict[str, Any]) -> str:
    """JSON in which nothing can end the element that holds it."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _title(comparison: Comparison) -> str:
    return f"Comparison of {len(comparison.names)} systems"


def _data(comparison: Comparison, sheets: Sheets) -> dict[str, Any]:
    first = comparison.banks[0].manifest
    seeds = format_seeds(first.seeds)
    classes = f", {comparison.classes} classes" if comparison.classes else ""
    shape = "x".join(str(size) for size in first.image_shape)
    return {
        "names": comparison.names,
        "summary": f"{comparison.noises:,} noises (seeds {seeds[:60]}{'...' if len(seeds) > 60 else ''}){classes}, "
        f"images {shape}, descriptor {comparison.descriptor['name']}, threshold {comparison.threshold:g}",
        "foot": f"repro {first.repro_version}. Intervals are Wilson's, 95 %. {sheets.about}",
        "threshold": comparison.threshold,
        "tile": sheets.size,
        "sheets": sheets.record(),
        "scores": _scores(comparison, sheets),
        "values": [
            {
                "name": score.name,
                "values": _plain(score.values),
                "control": None if score.control is None else _plain(score.control),
                "train": None if score.train is None or np.isnan(score.train).all() else _plain(score.train),
            }
            for score in comparison.values.values()
        ],
        "gl": list(_memorization(comparison, sheets)),
        "gl_condition": f"Share of samples that are no copy of a training image: {gl_condition(comparison)}.",
        "banks": [_bank(comparison, place) for place in range(len(comparison.names))],
    }


def _plain(values: np.ndarray) -> Any:
    """Nested lists with None for NaN."""
    return np.where(np.isnan(values), None, values.astype(object)).tolist()


def _scores(comparison: Comparison, sheets: Sheets) -> list[dict[str, Any]]:
    place = {name: number for number, name in enumerate(comparison.names)}
    pairs, classes, tests = (
        [
            {key: place[value] if key in ("system", "first", "second") else value for key, value in row.items()}
            for row in rows
        ]
        for rows in (comparison.table(), comparison.conditional_table(), comparison.paired_table())
    )
    found = []
    for score in comparison.scores.values():
        cells = []
        for row in pairs:
            if row["score"] == score.name:
                pair = row["first"], row["second"]
                own = {"first": pair[0], "second": pair[1], "score": score.name}
                by_class = [each for each in classes if own.items() <= each.items()]
                cells.append(row | {"classes": by_class} | _cell(comparison, score, pair, sheets))
        found.append(
            _facts(comparison, score) | {"cells": cells, "tests": [row for row in tests if row["score"] == score.name]}
        )
    return found


def _facts(comparison: Comparison, score: PairCounts) -> dict[str, Any]:
    title, about = _TITLES.get(score.name, (score.name, ""))
    most, least = _ENDS[score.sense]
    return {
        "name": score.name,
        "title": title,
        "about": about,
        "condition": condition(comparison, score),
        "controlled": score.control is not None,
        "sense": score.sense,
        "share": "share of noises" if score.n == comparison.noises else "share of noises and classes",
        "axis": "similarity threshold" if score.sense == ">" else "threshold of the mean difference, of 255",
        "most": most,
        "least": least,
        "threshold": score.threshold,
        "thresholds": score.thresholds(),
    }


def _cell(comparison: Comparison, score: PairCounts, pair: tuple[int, int], sheets: Sheets) -> dict[str, Any]:
    """The curve and the images behind a cell."""
    most, least = ([_pair(comparison, score, pair, row) for row in rows] for rows in sheets.pairs[score.name, pair])
    if not score.sense:
        return {"most": most, "least": least}
    control = None if score.control is None else score.curve(*pair, control=True).tolist()
    return {"most": most, "least": least, "curve": score.curve(*pair).tolist(), "control_curve": control}


def rows_of(found: Outcomes, row: int) -> tuple[int, int]:
    """Rows of the two banks that an outcome compares."""
    return tuple(row if places is None else int(places[row]) for places in (found.first, found.second))


def _pair(comparison: Comparison, score: PairCounts, pair: tuple[int, int], row: int) -> dict[str, Any]:
    found = score.outcomes[pair]
    places = rows_of(found, row)
    banks = [comparison.banks[place] for place in pair]
    labels = {int(bank.labels[at]) for bank, at in zip(banks, places, strict=True) if bank.labels is not None}
    return {
        "rows": places,
        "value": None if found.values is None else float(found.values[row]),
        "match": bool(found.matches[row]),
        "who": f"seed {int(banks[0].seeds[places[0]])}",
        "of": ", ".join(f"class {label}" for label in sorted(labels)),
    }


def _memorization(comparison: Comparison, sheets: Sheets) -> Iterator[dict[str, Any]]:
    rows = {row["system"]: row for row in comparison.memorization_table()}
    for place, (name, found) in enumerate(zip(comparison.names, comparison.memorization, strict=True)):
        if found is not None:
            yield rows[name] | {
                "system": place,
                "train": sheets.train_of[place],
                "thresholds": found.thresholds(comparison.threshold),
                "curve": found.curve(comparison.threshold),
                "most": [_nearest(comparison, place, found, row) for row in sheets.nearest[place][0]],
                "least": [_nearest(comparison, place, found, row) for row in sheets.nearest[place][1]],
            }


def _nearest(comparison: Comparison, place: int, found: Memorization, row: int) -> dict[str, Any]:
    bank = comparison.banks[place]
    label = "" if bank.labels is None else f"class {int(bank.labels[row])}, "
    return {
        "rows": [int(row), int(found.index[row])],
        "value": float(found.similarity[row]),
        "copy": bool(found.copies[row]),
        "who": f"seed {int(bank.seeds[row])}",
        "of": f"{label}image {int(found.index[row])}",
    }


def _bank(comparison: Comparison, place: int) -> dict[str, Any]:
    bank = comparison.banks[place]
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
        "name": comparison.names[place],
        "line": ", ".join(value for value in (*named.values(), manifest["task"]) if value),
        "facts": {key: str(value) for key, value in facts.items() if value},
        "manifest": manifest,
    }
