"""A comparison as plain data: what ``comparison.json`` holds."""

from __future__ import annotations

from typing import Any

from repro.comparison.remarks import remarks
from repro.comparison.results import Results
from repro.comparison.tables import TABLES

__all__ = ["record"]


def record(results: Results) -> dict[str, Any]:
    """Returns everything that the numbers depend on and the numbers themselves, as plain JSON data."""
    scores = results.scores.values()
    return {
        "format": 1,
        **results.conditions.record(),
        "seeds": results.banks[0].manifest.record()["seeds"],
        "systems": [
            {"name": name, "path": None if bank.path is None else str(bank.path), "fingerprint": bank.fingerprint}
            | {key: value for key, value in bank.manifest.record().items() if key not in ("seeds", "format")}
            for name, bank in zip(results.names, results.banks, strict=True)
        ],
        "scores": {score.name: score.counts.tolist() for score in scores},
        "controls": {score.name: score.control.tolist() for score in scores if score.control is not None},
        "totals": {score.name: score.totals.tolist() for score in scores},
        "conditional": TABLES["conditional"](results),
        "values": TABLES["values"](results),
        "memorization": TABLES["gl"](results),
        "notes": list(results.notes),
        "warnings": remarks(results),
    }
