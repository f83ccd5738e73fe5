"""One row a system: what it is, what its training took, and how alike its images are to everybody else's."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from repro.banks import Bank
from repro.comparison import Comparison
from repro.errors import UserError
from repro.metrics.functional.intervals import wilson_interval
from repro.records import flat, rebuild
from repro.studies.plan import Drawn, Trained

__all__ = ["Facts", "as_text", "facts_of", "system_rows"]


@dataclass(frozen=True)
class Facts:
    """What is known of a system apart from its images; None where nobody knows.

    Attributes:
        mode: Its module: how it was trained.
        network: Its network's class.
        kernel: Its kernel's class.
        sampler: How it was drawn.
        parameters: Trained parameters.
        images_seen: Training images until the last step, those of a teacher not counted.
        train_seconds: Wall time of its training, of the last attempt where it was interrupted.
        draw_seconds: Wall time of drawing its bank.
    """

    mode: str | None = None
    network: str | None = None
    kernel: str | None = None
    sampler: str | None = None
    parameters: int | None = None
    images_seen: int | None = None
    train_seconds: float | None = None
    draw_seconds: float | None = None


def facts_of(bank: Bank, run: Trained | None, drawn: Drawn | Path, folder: Path) -> Facts:
    """Returns what a bank's manifest, a run's folder and the finished jobs of a study say about a system.

    Args:
        bank: Its bank.
        run: The run that it was drawn from, if there is one.
        drawn: The bank as a part of the plan, or where images of others are.
        folder: The study's folder.
    """
    manifest = bank.manifest
    classes = {} if manifest.model is None else _classes(flat(manifest.model, "model"))
    sampler = None if manifest.sampler is None else _sampler(manifest.sampler)
    return Facts(
        (None if run is None else _of_run(run.run, "model")) or classes.get("model"),
        classes.get("network"),
        classes.get("kernel"),
        sampler,
        None if manifest.model is None else _parameters(manifest.model),
        None if run is None else _of_run(run.run, "images_seen"),
        None if run is None else _seconds(folder, run.job),
        None if isinstance(drawn, Path) else _seconds(folder, drawn.job),
    )


def _classes(settings: Mapping[str, Any]) -> dict[str, str]:
    """The outermost class under each argument's name."""
    classes: dict[str, str] = {}
    for key, value in settings.items():
        if isinstance(value, str):
            classes.setdefault(key.rpartition(".")[2], value)
    return classes


def _sampler(record: Mapping[str, Any]) -> str:
    steps = record["args"].get("steps")
    return record["name"] if steps is None or record["args"].get("ratios") else f"{record['name']} {steps}"


def _parameters(record: Mapping[str, Any]) -> int | None:
    """Parameters of the outermost network in a model's record."""
    network = _network(record)
    if network is not None:
        with suppress(UserError), torch.device("meta"):
            return sum(weight.numel() for weight in rebuild(network).parameters())
    return None


def _network(record: Any) -> Mapping[str, Any] | None:
    if not isinstance(record, Mapping) or record.get("group") == "networks":
        return record if isinstance(record, Mapping) else None
    return next((network for value in record.values() if (network := _network(value)) is not None), None)


def _of_run(run: Path, key: str) -> Any:
    with suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((run / "run.json").read_text())[key]
    return None


def _seconds(folder: Path, job: str | None) -> float | None:
    with suppress(OSError, ValueError, IndexError):
        return float((folder / "jobs" / f"{job}.done").read_text().split()[0])
    return None


def system_rows(compared: Comparison, facts: Sequence[Facts]) -> list[dict[str, Any]]:
    """Returns one row a system: its facts, and RP, its control, MAE and GL.

    RP and MAE are means over the other systems; the lowest and the highest RP stand with the other system's name and
    the Wilson interval.
    """
    rp, mae, rows = compared.scores["RP"], compared.scores["MAE"], []
    for index, (name, known) in enumerate(zip(compared.names, facts, strict=True)):
        others = [other for other in range(len(compared.names)) if other != index]
        low, high = (pick(others, key=lambda other: rp.rates[index, other]) for pick in (min, max))
        memorized = compared.memorization[index]
        rows.append(
            {"system": name}
            | vars(known)
            | {"n": rp.n, "rp_mean": float(np.mean(rp.rates[index, others]))}
            | _end("rp_lowest", rp, index, low, compared.names[low])
            | _end("rp_highest", rp, index, high, compared.names[high])
            | {"rp_control_highest": None if rp.control_rates is None else float(rp.control_rates[index, others].max())}
            | {"mae_mean": float(np.mean(mae.rates[index, others]))}
            | {"gl": None if memorized is None else memorized.rate}
        )
    return rows


def _end(key: str, score: Any, first: int, second: int, name: str) -> dict[str, Any]:
    count = int(score.counts[first, second])
    low, high = wilson_interval(count, score.n)
    return {key: count / score.n, f"{key}_with": name, f"{key}_from": low, f"{key}_to": high}


def as_text(compared: Comparison, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns the rows as a table for a terminal of any width, with what they were measured with."""
    from rich.console import Console
    from rich.table import Table

    control = max((row["rp_control_highest"] for row in rows if row["rp_control_highest"] is not None), default=None)
    judged = f"{compared.descriptor['name']} > {compared.threshold:g}, n = {compared.n:,} noises"
    title = f"Images alike from the same noise: {judged}"
    table = Table(title=title, title_justify="left")
    heads = (
        "system",
        "network",
        "kernel",
        "sampler",
        "parameters",
        "images seen",
        "trained",
        "drawn",
        "RP",
        "lowest RP",
    )
    for head in (*heads, "highest RP", "MAE", "GL"):
        table.add_column(head, justify="left" if head in heads[:4] else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row["system"],
            *(row[key] or "" for key in ("network", "kernel", "sampler")),
            *("" if row[key] is None else f"{row[key]:,}" for key in ("parameters", "images_seen")),
            *("" if row[key] is None else f"{row[key]:.0f} s" for key in ("train_seconds", "draw_seconds")),
            f"{row['rp_mean']:.3f}",
            *(
                f"{row[key]:.3f} ({row[f'{key}_from']:.3f}-{row[f'{key}_to']:.3f}) {row[f'{key}_with']}"
                for key in ("rp_lowest", "rp_highest")
            ),
            f"{row['mae_mean']:.3f}",
            "" if row["gl"] is None else f"{row['gl']:.3f}",
        )
    console = Console(width=10_000, record=True, file=io.StringIO(), color_system=None, highlight=False)
    console.width = max(console.measure(table).maximum, 80)
    console.print(table)
    text = "\n".join(line.rstrip() for line in console.export_text().splitlines())
    note = "RP and MAE: means over the other systems; in brackets 95 % intervals"
    return f"{text}\n{note}" + (
        "" if control is None else f"; highest RP of any pair on shuffled noises: {control:.3f}"
    )
