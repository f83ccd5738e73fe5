"""Models and trainings from their checkpoints alone: this project's own, and models from files of others."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from repro.checkpoints.allowance import Allowance
from repro.checkpoints.format_1 import former_fingerprint
from repro.checkpoints.native import class_names_of, data_of, read_checkpoint, training_record
from repro.errors import UserError
from repro.models.base import Recorded
from repro.models.decoded import Decoded
from repro.models.weights import load_weights
from repro.records import rebuild
from repro.released.addresses import local_path
from repro.released.folders import weights_in
from repro.released.importing import assumptions, import_file

__all__ = ["load", "load_model", "load_training"]

Weights = Literal["ema", "raw"]


def load(
    path: str | os.PathLike[str],
    weights: Literal["ema", "raw"] = "ema",
    format: str = "auto",
    decoder: str | None = None,
    **options: Any,
) -> Recorded:
    """Rebuilds a model from its checkpoint alone, or reads an author-released one; in evaluation mode.

    Args:
        path: A checkpoint, a run's folder (its newest checkpoint), or a file of another project.
        weights: Sample with the averaged weights (``ema``) or those of the last step (``raw``).
        format: Format of a file of another project (``repro plugins checkpoints``), or ``auto``.
        decoder: For a model of latents, what makes images of them: see :class:`~repro.models.decoded.Decoded`.
        **options: What a file of another project does not say; arguments of its format's class.

    Raises:
        UserError: as :func:`load_model`; a decoder that cannot be read or is for other
            latents.

    Example:
        >>> model = load("edm-cifar10-32x32-uncond-vp.pkl")  # doctest: +SKIP
    """
    model = load_model(path, weights, format, **options)
    return model if decoder is None else Decoded(model, decoder).eval().requires_grad_(False)


def load_model(
    path: str | os.PathLike[str], weights: Weights = "ema", format: str = "auto", **options: Any
) -> Recorded:
    """Rebuilds a model from its checkpoint alone, or reads an author-released one; in evaluation mode.

    Args:
        path: A checkpoint, a run's folder (its newest checkpoint), or a file of another project.
        weights: Averaged weights (``ema``) or those of the last step (``raw``).
        format: Format of a file of another project (``repro plugins checkpoints``), or ``auto``.
        **options: What such a file does not say; see :func:`repro.released.importing.import_file`.

    Raises:
        UserError: as :func:`~repro.checkpoints.native.read_checkpoint`; a record that cannot be rebuilt here; weights
            that do not fit; a file of no known format.
    """
    if weights not in ("ema", "raw"):
        raise UserError(f"weights is {weights!r}; it is 'ema' or 'raw'")
    path, checkpoint, refusal = local_path(path), None, None
    if format == "auto" and not options and weights_in(path) is None:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            if not Path(path).is_file():
                raise
            refusal = error
    model = (
        _imported(path, weights, format, options, refusal) if checkpoint is None else _own(checkpoint, path, weights)
    )
    model.origin = f"{model.origin} ({weights})"
    return model.eval().requires_grad_(False)


def load_training(path: str | os.PathLike[str]) -> Any:
    """Rebuilds the training module of a checkpoint, with its model, weights and progress; in evaluation mode.

    A model that was imported from another project's file goes on as ``Diffusion`` would, from its weights.

    Args:
        path: A checkpoint, or a run's folder.

    Raises:
        UserError: as :func:`load_model`, or a model that nothing here trains.
    """
    checkpoint = read_checkpoint(path)
    record = training_record(checkpoint)
    if record is None:
        own = checkpoint["repro"]["model"]["record"]
        if own["name"] != "DenoisingModel":
            raise UserError(f"{path} holds a {own['name']}, which is not trained; draw from it: repro predict")
        module = rebuild(own | {"group": "modules", "name": "Diffusion"}, reach=False)
        state = checkpoint["state_dict"]
        missing = {name: tensor for name, tensor in _raw_of(state).items() if name not in state}
        load_weights(module, {**state, **missing}, f"checkpoint {path}")
        module.model.data_record, module.model.data_fingerprint = data_of(checkpoint)
        return module.eval()
    with Allowance(checkpoint["state_dict"].values(), f"checkpoint {path}"):
        module = rebuild(record, "modules", reach=False)
    module.on_load_checkpoint(checkpoint)
    load_weights(module, checkpoint["state_dict"], f"checkpoint {path}")
    return module.eval()


def _raw_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """A model's averaged weights under the names of raw ones."""
    return {
        f"trained.{name.removeprefix('model.denoiser.')}": tensor
        for name, tensor in state.items()
        if name.startswith("model.")
    }


def _own(checkpoint: dict[str, Any], path: str | os.PathLike[str], weights: Weights) -> Recorded:
    """The model of a checkpoint of this project."""
    if checkpoint["repro"]["format"] == 1:
        model = _of_format_1(checkpoint["repro"]["model"], checkpoint, f"checkpoint {path}", weights)
    else:
        record = checkpoint["repro"]["model"]
        with Allowance(checkpoint["state_dict"].values(), f"checkpoint {path}"):
            model = rebuild(record["record"], "models", reach=False)
        state = {
            name.removeprefix("model."): each
            for name, each in checkpoint["state_dict"].items()
            if name.startswith("model.")
        }
        if weights == "raw":
            state |= {
                f"{record['averaged']}.{name.removeprefix('trained.')}": each
                for name, each in checkpoint["state_dict"].items()
                if name.startswith("trained.")
            }
        load_weights(model, state, f"checkpoint {path}")
    model.data_record, model.data_fingerprint = data_of(checkpoint)
    model.class_names = class_names_of(checkpoint)
    model.origin = str(Path(path).resolve())
    if imported := checkpoint["repro"].get("imported"):
        assumed = assumptions(imported.get("assumed"), "; assumed ")
        model.origin += f", imported from {imported['path']} (sha256 {imported['sha256']}{assumed})"
    return model


def _of_format_1(record: dict[str, Any], checkpoint: dict[str, Any], source: str, weights: Weights) -> Recorded:
    """The model of a checkpoint that was written before models and training modules were parted."""
    if record["name"] == "Decoded":
        inner = {
            name.removeprefix("model."): each
            for name, each in checkpoint["state_dict"].items()
            if name.startswith("model.")
        }
        latents = _of_format_1(record["args"]["model"], checkpoint | {"state_dict": inner}, source, weights)
        model = Decoded(latents, Decoded.inside_only(record["args"])["decoder"])
        outer = {name: each for name, each in checkpoint["state_dict"].items() if name.startswith("decoder.")}
        load_weights(model.decoder, {name.removeprefix("decoder."): each for name, each in outer.items()}, source)
        return model
    with Allowance(checkpoint["state_dict"].values(), source):
        module, checkpoint = rebuild(record, "modules", "models", reach=False), dict(checkpoint)
    module.on_load_checkpoint(checkpoint)
    load_weights(module, checkpoint["state_dict"], source)
    if weights == "raw":
        module.average.load_state_dict(module.trained.state_dict())
    module.model.former_fingerprint = former_fingerprint(record, module, module.averaged)
    return module.model


def _imported(
    path: str | os.PathLike[str],
    weights: Weights,
    format: str,
    options: Mapping[str, Any],
    refusal: UserError | None,
) -> Recorded:
    """The model of a file of another project; what has our suffix is told of as a checkpoint of ours."""
    try:
        imported = import_file(path, format, **options)
    except UserError:
        if refusal is not None and Path(path).suffix == ".ckpt":
            raise refusal from None
        raise
    imported.tell()
    return imported.model if weights == "ema" else imported.raw_model()
