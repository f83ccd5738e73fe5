"""Scoring a model while it draws: RP and MAE against references, GL against the training images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric

from repro.banks import Bank, format_seeds
from repro.data.base import ImageData
from repro.data.progress import slow_progress
from repro.data.recorded import recorded_data
from repro.descriptors import Descriptor, default_descriptor
from repro.drawing.bank import SHARD, drawn_model, run_folder_of
from repro.drawing.described import Described
from repro.drawing.drawing import Drawing
from repro.drawing.processes import one_process
from repro.drawing.scores import Scores
from repro.drawing.systems import systems_of
from repro.errors import UserError
from repro.files import csv_text, make_folder, write_text
from repro.images import to_uint8
from repro.inverse.problem import Problem
from repro.metrics.functional.mae import check_mae_threshold
from repro.metrics.functional.similarity import check_threshold
from repro.metrics.protocol import model_metrics, pair_metrics
from repro.models.base import Model, Recorded
from repro.plots import image_grid, save_figure
from repro.samplers.base import Sampler

__all__ = ["score"]

_SHOWN = 8


def score(
    model: Model | str | os.PathLike[str],
    seeds: str | Sequence[int] = "0-999",
    task: str | None = None,
    reference: list[str] | None = None,
    descriptor: Descriptor | None = None,
    threshold: float | None = None,
    mae_threshold: float = 15.0,
    metric: list[str] | None = None,
    sampler: Sampler | None = None,
    weights: Literal["ema", "raw"] = "ema",
    problem: Problem | None = None,
    guidance: float = 1.0,
    classes: str | None = None,
    batch_size: int = SHARD,
    data: ImageData | None = None,
    run: Path | None = None,
    processes: Fabric | None = None,
) -> Scores:
    """Draws numbered images and scores them: RP and MAE against references, GL against the training images.

    Args:
        model: A model, or the path of a checkpoint, a run or a file of another project.
        seeds: Which noises, for example 0-9999.
        task: What is drawn for each noise; by default ``conditional`` for a model with classes, else
            ``unconditional``.
        reference: What to compare with, as :func:`repro.drawing.systems_of` takes it: banks, checkpoints, runs,
            folders, archives or arrays of images, ``name=path``. Models draw, unless their run has the bank. Between a
            conditional and an unconditional one the score is between RP.
        descriptor: What makes two images alike; by default SSCD when its weights are present, else the small one
            that fits the images.
        threshold: Similarity above which two images are the same; by default the descriptor's.
        mae_threshold: Mean absolute difference below which they are, in [0, 255].
        metric: Names of further metrics of the group ``repro.metrics``; those of one model, as ``BitsPerDimension``,
            are measured on as many training images, and held-out images, as there are seeds.
        sampler: Draw with this sampler instead of the model's own.
        weights: Averaged weights (``ema``) or those of the last step (``raw``).
        problem: What an inverse task measures.
        guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none. References that are
            sampled and have classes get it too.
        classes: Which classes a conditional model draws, for example 0-4,7; by default all.
        batch_size: Seeds at a time.
        data: Data for GL; by default those that the model was trained on.
        run: The run's folder, for the task's picture; by default that of the checkpoint.
        processes: Who draws together; see :func:`repro.drawing.processes.launch`. By default this process.

    Returns:
        The scores, with counts and intervals.

    Raises:
        UserError: bad seeds or thresholds, a reference of other seeds or sizes, nothing to score against.
    """
    read = model if isinstance(model, Recorded) else drawn_model(model, weights)
    drawing = Drawing(
        model=read, seeds=seeds, task=task, sampler=sampler, guidance=guidance, classes=classes, problem=problem
    )
    descriptor = descriptor or default_descriptor(read.image_shape)
    descriptor.check_shape(read.image_shape)
    threshold = check_threshold(descriptor.default_threshold if threshold is None else threshold)
    check_mae_threshold(mae_threshold)
    of_model = model_metrics(metric or [])
    of_pairs = pair_metrics([name for name in metric or [] if name not in of_model], descriptor.name)
    metrics = drawing.plan.metrics() | of_pairs
    fabric = processes or one_process()
    plan = drawing.plan.task, guidance, classes, problem, fabric
    references = systems_of(reference or [], None, drawing.numbers, *plan)
    banks = {system.name: system.open() for system in references}
    _check_references(banks, drawing)
    banks = drawing.plan.references(drawing.numbers) | banks
    if data is None and read.data_record is not None and drawing.plan.trained_for:
        data = recorded_data(read.data_record, "the checkpoint", "--data")
    labelled = drawing.plan.classes is not None
    described = Described(read, of_model, data, len(drawing.numbers), labelled) if of_model else None
    train = to_uint8(data.shown()[0]) if data is not None else None
    unseen = to_uint8(data.held_out()[0]) if data is not None and data.holdout else None
    scores = Scores(banks, descriptor, threshold, mae_threshold, train, metrics, fabric.device, labelled, unseen)
    folder = run if run is not None or isinstance(model, Recorded) else run_folder_of(model)
    if folder is not None and fabric.is_global_zero:
        make_folder(folder)
    _feed(scores, drawing, batch_size, fabric)
    if described is not None:
        described.measure(fabric)
        scores.described = described.table()
    rows, chances = scores.table(), scores.chances()  # asked for by all processes, which count together
    if fabric.is_global_zero:
        scores.picture = None if folder is None else _picture(drawing, banks, folder)
        if folder is not None:
            scores.written = folder / f"{drawing.label}.scores.csv"
            conditions = {"descriptor": descriptor.name, "threshold": threshold, "mae_threshold": mae_threshold}
            write_text(scores.written, _csv(rows, chances, conditions | {"seeds": format_seeds(drawing.numbers)}))
    return scores


def _csv(rows: Iterable[Any], chances: Mapping[str, float], conditions: Mapping[str, Any]) -> str:
    """The scores as a table, each row with its chance level and what it was measured under."""
    table = []
    for name, value, interval, count in rows:
        low, high = interval or ("", "")
        n = "" if count is None else count
        row = {"score": name, "value": value, "low": low, "high": high, "n": n, "chance": chances.get(name, "")}
        table.append(row | dict(conditions))
    return csv_text(table)


def _feed(scores: Scores, drawing: Drawing, batch_size: int, fabric: Fabric) -> None:
    """Draws and scores, each process batches of its own, so that every seed counts once."""
    drawing.model.to(fabric.device)
    seeds, step = drawing.numbers, batch_size * fabric.world_size
    starts = range(fabric.global_rank * batch_size, len(seeds), step)
    with slow_progress("scoring", len(starts) * batch_size) as done:
        for count, start in enumerate(starts, 1):
            part = seeds[start : start + batch_size]
            with torch.inference_mode(), fabric.autocast():
                images, labels = drawing.images(part)
                scores.update(torch.tensor(part, dtype=torch.int64), images, labels)
            done(count * batch_size)
    fabric.barrier()


def _check_references(banks: dict[str, Bank], drawing: Drawing) -> None:
    """Raises UserError for a bank of another size, or drawn for another problem."""
    for name, bank in banks.items():
        if tuple(bank.manifest.image_shape) != tuple(drawing.model.image_shape):
            raise UserError(
                f"reference {name} has images {tuple(bank.manifest.image_shape)}, the model's are "
                f"{tuple(drawing.model.image_shape)}; compare models of one image size"
            )
        if bank.manifest.extra != drawing.plan.record:
            raise UserError(
                f"reference {name} was drawn for another problem; draw it for this one: give its checkpoint"
            )


def _picture(drawing: Drawing, banks: dict[str, Bank], folder: Path) -> Path | None:
    """Writes the task's columns beside what was drawn, for the first noises; None where a task has no columns."""
    shown = drawing.numbers[:_SHOWN]
    if not (columns := drawing.plan.columns(shown)):
        return None
    others = {name: bank.select(shown).images for name, bank in banks.items() if name not in columns}
    columns |= {"result": drawing.images(shown)[0], **others}
    rows = [f"seed {seed}" for seed in shown]
    stacked = torch.stack([*columns.values()], dim=1)
    figure = image_grid(stacked, list(columns), rows, drawing.plan.task, "one row a noise")
    path = folder / f"{drawing.kind}.png"
    save_figure(figure, path)
    return path
