"""Models in the layout of the diffusers library, from folders or its hub: weights from safetensors, no code of theirs.

What a folder names is checked before anything is loaded: the classes that are built from it are the few below, and
its weights are safetensors files. A name on the hub is looked up in the local cache first.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from repro.errors import UserError, unknown
from repro.files import read_settings, sha256_of_file

__all__ = ["autoencoder_in", "autoencoder_of", "check_extra", "pipeline_in", "unconditional_in"]

_EXTRA = ("diffusers", "transformers")
_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_PIPELINE = "StableDiffusionPipeline"
_COMPONENTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_UNCONDITIONAL = {"unet": ("UNet2DModel",), "vae": ("AutoencoderKL",), "vqvae": ("VQModel", "AutoencoderKL")}
_WEIGHTS = ("unet", "vae", "text_encoder")
_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
_FILES = ("*.json", "*.txt", "diffusion_pytorch_model.safetensors", "model.safetensors")
_FOLDERS = ("", "unet/", "vae/", "vqvae/", "text_encoder/", "tokenizer/", "scheduler/")


def check_extra(what: str) -> None:
    """Raises a UserError when a package of the extra ``diffusers`` is missing.

    Args:
        what: What needs it, for the message.
    """
    missing = [package for package in _EXTRA if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(f"{what} needs {' and '.join(missing)}: pip install {' '.join(missing)}")


def pipeline_in(name: str) -> Any:
    """Returns a Stable Diffusion pipeline, in float32 on the CPU, without its safety checker.

    Args:
        name: A folder as ``save_pretrained`` of diffusers writes it, or a name on the hub such as ``owner/model``.

    Raises:
        UserError: the extra is not installed; there is no such folder, or the hub cannot be reached; another kind of
            pipeline; pickled weights, damaged files.
    """
    check_extra("text to image")
    folder = _found(name, _check_pipeline)
    from diffusers import StableDiffusionPipeline

    with _reading(folder):
        pipeline = StableDiffusionPipeline.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            requires_safety_checker=False,
            **dict.fromkeys(_LEFT_OUT),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def unconditional_in(name: str) -> tuple[Any, Any, Any]:
    """Returns network, scheduler, and autoencoder (or None) of a pipeline without text, in float32 on the CPU.

    Args:
        name: A folder as ``save_pretrained`` of diffusers writes it, or a name on the hub such as ``owner/model``.

    Raises:
        UserError: as :func:`pipeline_in`.
    """
    check_extra("Pipeline")
    folder = _found(name, _check_unconditional)
    import diffusers

    own = {"use_safetensors": True, "local_files_only": True, "low_cpu_mem_usage": False}
    index, parts = _settings(folder / "model_index.json"), []
    with _reading(folder):
        for part in _UNCONDITIONAL:
            if index.get(part) is not None:
                parts.append(getattr(diffusers, index[part][1]).from_pretrained(_part(folder, part), **own).eval())
        scheduler = getattr(diffusers, index["scheduler"][1]).from_pretrained(_part(folder, "scheduler"))
    return parts[0], scheduler, parts[1] if len(parts) > 1 else None


def autoencoder_in(name: str) -> tuple[Any, dict[str, Any]]:
    """An ``AutoencoderKL``, and a record for :func:`autoencoder_of`: its settings and the SHA-256 of its weights.

    Args:
        name: Its folder, that of a pipeline with one in ``vae``, or a name on the hub.

    Raises:
        UserError: as :func:`pipeline_in`.
    """
    check_extra("a decoder of latents")
    folder = _autoencoder_folder(_found(name, lambda folder: _check_autoencoder(_autoencoder_folder(folder))))
    from diffusers import AutoencoderKL

    with _reading(folder):
        autoencoder = AutoencoderKL.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    config = {key: value for key, value in autoencoder.config.items() if not key.startswith("_")}
    weights = sorted(folder.glob("*.safetensors"))
    sha256 = "+".join(sha256_of_file(file) for file in weights)
    return autoencoder, {"config": json.loads(json.dumps(config, default=list)), "sha256": sha256}


def autoencoder_of(record: dict[str, Any]) -> Any:
    """Returns an ``AutoencoderKL`` of recorded settings, at random weights.

    Args:
        record: With ``config`` and ``sha256``, from :func:`autoencoder_in`.

    Raises:
        UserError: the extra is not installed, or this is no such record.
    """
    check_extra("a decoder of latents")
    from diffusers import AutoencoderKL

    try:
        if record.keys() != {"config", "sha256"}:
            raise ValueError(f"it has the keys {sorted(record)}")
        return AutoencoderKL(**record["config"])
    except (TypeError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"this is no record of a decoder: {reason}; name its folder instead") from error


def _found(name: str, check: Callable[[Path], None]) -> Path:
    """The folder of a name: this one, else the cache's, else as downloaded; checked."""
    if (folder := Path(name)).is_dir():
        check(folder)
        return folder
    if not _HUB_NAME.fullmatch(name):
        raise UserError(f"there is no folder {name}; give one in the layout of diffusers, or a name on its hub")
    from huggingface_hub import snapshot_download

    patterns = [folder + file for folder in _FOLDERS for file in _FILES]
    with contextlib.suppress(Exception):
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        check(folder)
        return folder
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:
        reason = " ".join(str(error).split()).split(". ")[0][:100]
        raise UserError(
            f"there is no folder {name} here, and none can be had from the hub under this name "
            f"({type(error).__name__}: {reason}); download it where there is a network, and name its folder"
        ) from error
    check(folder)
    return folder


def _settings(file: Path) -> dict[str, Any]:
    """The JSON object in a file."""
    if not file.is_file():
        raise UserError(f"{file.parent} is not in the layout of diffusers: it has no {file.name}")
    return read_settings(file)


def _check_pipeline(folder: Path) -> None:
    """Raises UserError unless the folder names only the classes that are built, with weights in safetensors."""
    index = _settings(folder / "model_index.json")
    if index.get("_class_name") != _PIPELINE:
        raise UserError(f"{folder} holds a {index.get('_class_name')!r:.60}; only {_PIPELINE} can be read")
    for part, names in index.items():
        if part.startswith("_") or part in (*_LEFT_OUT, "scheduler", "requires_safety_checker"):
            continue
        if part not in _COMPONENTS:
            raise unknown(f"component of {folder}", part[:40], _COMPONENTS)
        package, name = names if isinstance(names, list) and len(names) == 2 else (None, None)
        if package not in _EXTRA or name not in _COMPONENTS[part]:
            raise UserError(f"{part} of {folder} is {names!r:.60}; only {_COMPONENTS[part][0]} can be read")
    missing = [part for part in _COMPONENTS if index.get(part) is None]
    if missing:
        raise UserError(f"{folder} has no {missing[0]}; it is no whole pipeline")
    _check_scheduler_of(index, folder)
    for part in _WEIGHTS:
        _check_weights(folder / part)


def _check_unconditional(folder: Path) -> None:
    """Raises UserError unless the folder is that of an unconditional pipeline of classes that are built here."""
    index = _settings(folder / "model_index.json")
    parts = {part: names for part, names in index.items() if not part.startswith("_") and part != "scheduler"}
    for part, names in parts.items():
        if names is None:
            continue
        legal = _UNCONDITIONAL.get(part, ())
        if names not in [["diffusers", name] for name in legal]:
            raise UserError(
                f"{folder} holds a {index.get('_class_name')!r:.60} with the part {part!r:.40} ({names!r:.60}); "
                "pipelines of UNet2DModel and a scheduler can be drawn from, with or without an autoencoder"
            )
        _check_weights(_part(folder, part))
    if parts.get("unet") is None:
        raise UserError(f"{folder} has no unet; it is no whole pipeline")
    _check_scheduler_of(index, folder)


def _check_scheduler_of(index: dict[str, Any], folder: Path) -> None:
    scheduler = index.get("scheduler")
    if not (
        isinstance(scheduler, list)
        and len(scheduler) == 2
        and scheduler[0] == "diffusers"
        and re.fullmatch(r"[A-Z]\w*Scheduler", str(scheduler[1]))
    ):
        raise UserError(f"scheduler of {folder} is {scheduler!r:.60}; only those of diffusers can be read")


def _part(folder: Path, part: str) -> Path:
    """The folder of a part; in flat layouts the network and its scheduler lie in the pipeline's own."""
    return folder / part if (folder / part).is_dir() else folder


def _autoencoder_folder(folder: Path) -> Path:
    return folder / "vae" if (folder / "model_index.json").is_file() else folder


def _check_autoencoder(folder: Path) -> None:
    kind = _settings(folder / "config.json").get("_class_name")
    if kind != "AutoencoderKL":
        raise UserError(f"{folder} holds a {kind!r:.60}; the decoder of latents is an AutoencoderKL")
    _check_weights(folder)


def _check_weights(folder: Path) -> None:
    _settings(folder / "config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = next((file.name for kind in ("*.bin", "*.pt", "*.pth", "*.ckpt") for file in folder.glob(kind)), None)
        reason = f"only {pickled}, a pickle, which may run code" if pickled else "none"
        raise UserError(f"{folder} has no weights in safetensors ({reason}); save it with safe_serialization=True")


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Quiet, and with damaged files told in one line."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    loggings = (of_diffusers, of_transformers)
    before = [(each, each.is_progress_bar_enabled(), each.get_verbosity()) for each in loggings]
    try:
        for each in loggings:
            each.disable_progress_bar()
            each.set_verbosity_error()
        with warnings.catch_warnings(action="ignore"):
            yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, _safetensors_error()) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:120]
        raise UserError(f"cannot read {folder}: damaged, or weights that do not fit its settings ({reason})") from error
    finally:
        for each, shown, level in before:
            each.set_verbosity(level)
            if shown:
                each.enable_progress_bar()


def _safetensors_error() -> type[Exception]:
    from safetensors import SafetensorError

    return SafetensorError
