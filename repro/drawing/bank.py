"""Drawing numbered images from any model: into a bank that can be continued, or in memory."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from lightning.fabric import Fabric
from torch import Tensor

from repro.banks import Bank, BankWriter
from repro.banks.manifest import Manifest, read_manifest
from repro.checkpoints.loading import load_model
from repro.data.progress import slow_progress
from repro.drawing.drawing import Drawing
from repro.drawing.processes import one_process
from repro.errors import UserError
from repro.inverse.problem import Problem
from repro.models.base import Model, Recorded
from repro.released.addresses import local_path
from repro.released.folders import title_of, weights_in
from repro.samplers.base import Sampler

__all__ = ["draw", "draw_bank", "run_folder_of", "sample"]

SHARD = 250


def draw(
    model: Model | str | os.PathLike[str],
    seeds: str | Sequence[int] = "0-999",
    task: str | None = None,
    output: str | Path | None = None,
    sampler: Sampler | None = None,
    weights: Literal["ema", "raw"] = "ema",
    problem: Problem | None = None,
    guidance: float = 1.0,
    classes: str | None = None,
    shard_size: int = SHARD,
    run: Path | None = None,
    processes: Fabric | None = None,
) -> Bank:
    """Draws numbered images into a sample bank, going on where an interrupted one stopped.

    Args:
        model: A model, or the path of a checkpoint, a run or a file of another project.
        seeds: Which noises, for example 0-9999.
        task: What is drawn for each noise; by default ``conditional`` for a model with classes, else
            ``unconditional``.
        output: Folder of the bank; by default ``banks/<task>_<seeds>`` in the run's folder, which for an
            author-released file is ``runs/imported/<file>``.
        sampler: Draw with this sampler instead of the model's own.
        weights: Averaged weights (``ema``) or those of the last step (``raw``).
        problem: What an inverse task measures.
        guidance: Scale w of classifier-free guidance, uncond + w (cond - uncond); 1 is none.
        classes: Which classes a conditional model draws, for example 0-4,7; by default all.
        shard_size: Seeds at a time, and in each file.
        run: The run's folder; by default that of the checkpoint. A model that is no path is drawn in memory when
            neither this nor ``output`` is given.
        processes: Who draws together; see :func:`repro.drawing.processes.launch`. By default this process.

    Raises:
        UserError: bad seeds, a task that the model cannot do, a folder with other samples.

    Example:
        >>> from repro.models.gan import GANModel
        >>> draw(GANModel(8, 1, width=4, latent=16), "0-3").images.shape
        torch.Size([4, 1, 8, 8])
    """
    read = model if isinstance(model, Recorded) else drawn_model(model, weights)
    drawing = Drawing(
        model=read, seeds=seeds, task=task, sampler=sampler, guidance=guidance, classes=classes, problem=problem
    )
    if isinstance(model, Recorded) and output is None and run is None:
        return _in_memory(drawing, shard_size)
    folder = Path(output) if output is not None else own_folder(drawing, run or run_folder_of(model))
    draw_bank(drawing, folder, shard_size, processes)
    return Bank.open(folder)


def own_folder(drawing: Drawing, run: Path) -> Path:
    """Returns the folder of a drawing's bank below a run's: one that holds no bank of another checkpoint or sampler."""
    folder, wanted = drawing.folder(run), drawing.manifest()
    with suppress(UserError):
        if read_manifest(folder).differences(same_model(wanted, drawing.model, folder)):
            digest = hashlib.sha256(json.dumps([wanted.model_fingerprint, wanted.sampler], sort_keys=True).encode())
            return folder.with_name(f"{folder.name}-{digest.hexdigest()[:8]}")
    return folder


def draw_bank(
    drawing: Drawing, folder: str | os.PathLike[str], shard_size: int = SHARD, processes: Fabric | None = None
) -> None:
    """Draws what a bank's folder still lacks, each process its own shards; returns when all processes are done.

    Raises:
        UserError: the folder holds other samples, or cannot be written.
    """
    fabric = processes or one_process()
    writer = BankWriter(folder, same_model(drawing.manifest(), drawing.model, Path(folder)), shard_size=shard_size)
    drawing.model.to(fabric.device)
    missing = writer.missing(fabric.global_rank, fabric.world_size)
    total, count = sum(map(len, missing)), 0
    with slow_progress("drawing", total) as done:
        for seeds in missing:
            with fabric.autocast():
                images, labels = drawing.images(seeds)
            writer.write(seeds, images, labels)
            done(count := count + len(seeds))
    fabric.barrier()


def sample(model: Model, seeds: Iterable[int], labels: Tensor | None = None, batch_size: int = SHARD) -> Tensor:
    """Draws images of numbered noises in memory: uint8 (n, C, H, W) on the CPU.

    Args:
        model: Any model that draws.
        seeds: One number an image.
        labels: Class of each image, for conditional models.
        batch_size: Images at a time; the images do not depend on it beyond the rounding of matrix products.

    Raises:
        UserError: no seeds, or labels that do not fit the model.
    """
    seeds = list(seeds)
    parts = [
        model.sample(seeds[i : i + batch_size], None if labels is None else labels[i : i + batch_size])
        for i in range(0, max(1, len(seeds)), batch_size)
    ]
    return torch.cat(parts)


def drawn_model(path: str | os.PathLike[str], weights: Literal["ema", "raw"] = "ema") -> Model:
    """Loads the model of a checkpoint, run or released file, refusing one that draws no images."""
    model = load_model(path, weights)
    if not isinstance(model, Model):
        use = model.next_command.format(run=path)
        raise UserError(f"{path} holds a {type(model).__name__}, which draws no images; use it: {use}")
    return model


def run_folder_of(path: str | os.PathLike[str]) -> Path:
    """The folder that a checkpoint's banks and pictures go to: its run's; ``runs/imported/<file>`` for other files."""
    path = local_path(path)
    foreign = path.is_file() and path.parent.name != "checkpoints" and path.suffix != ".ckpt"
    if foreign or weights_in(path) is not None:
        return Path("runs/imported") / title_of(path)
    if path.is_file():
        path = path.parent
    return path.parent if path.name == "checkpoints" else path


def _in_memory(drawing: Drawing, shard_size: int) -> Bank:
    parts = [drawing.images(drawing.numbers[i : i + shard_size]) for i in range(0, len(drawing.numbers), shard_size)]
    labels = None if drawing.plan.classes is None else torch.cat([part for _, part in parts if part is not None])
    return Bank(torch.cat([images for images, _ in parts]), drawing.manifest(), labels)


def _bytes_in(source: str) -> list[str]:
    """The hashes of files that a source names, and which of their weights."""
    return re.findall(r"sha256 [0-9a-f]{64}|\((?:ema|raw)\)$", source) if "sha256 " in source else []


def same_model(manifest: Manifest, model: Model, folder: Path) -> Manifest:
    """Renames the model of a manifest as the bank that is there does, where that is this model's former name.

    Banks of earlier versions name the training module that the model came from, and its hash; for a file of another
    project its source tells the bytes.
    """
    with suppress(UserError):
        old = read_manifest(folder)
        came_from = _bytes_in(old.source) == _bytes_in(manifest.source) != []
        if (old.model or {}).get("group") == "modules" and (
            came_from or old.model_fingerprint == model.former_fingerprint != ""
        ):
            return replace(manifest, model=old.model, model_fingerprint=old.model_fingerprint, kernel=old.kernel)
    return manifest
