"""Parsed settings and the objects that they describe: sizes that data and task settle, building, names for writing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from jsonargparse import Namespace

from repro import registry
from repro.checkpoints.loading import load_model
from repro.cli.schema import class_of, options_of, slot_of
from repro.data.base import ImageData
from repro.errors import UserError
from repro.training.source import Source

__all__ = ["build", "fill", "learnt_from", "leave_folder_open", "put_into_folder", "short_names", "specs"]

_SIZES = ("image_size", "channels", "num_classes")
_USUAL = "lightning_logs"


def specs(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Yields every ``{class_path, init_args}`` inside a parsed value, outermost first, with its key."""
    if isinstance(value, Mapping | Namespace):
        if "class_path" in value:
            yield where, value
            value = value.get("init_args") or {}
        for key in list(value if isinstance(value, Mapping) else vars(value)):
            yield from specs(value[key], f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from specs(item, f"{where}[{index}]")


def short_names(plain: Any) -> Any:
    """Replaces import paths of registered classes in a dumped configuration by their names."""
    if isinstance(plain, list):
        return [short_names(item) for item in plain]
    if not isinstance(plain, dict):
        return plain
    plain = {key: short_names(item) for key, item in plain.items()}
    if isinstance(path := plain.get("class_path"), str) and "." in path:
        entry = registry.entry_of(class_of(path))
        plain["class_path"] = entry.name if entry else path
    return plain


def build(value: Any, where: str) -> Any:
    """Builds the object that a parsed ``{class_path, init_args}`` describes, nested ones first.

    Args:
        value: The parsed value.
        where: Its key, put before the message of a constructor's UserError.
    """
    if isinstance(value, list):
        return [build(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if not isinstance(value, Mapping | Namespace):
        return value
    if "class_path" not in value:
        return {key: build(value[key], f"{where}.{key}") for key in _keys(value)}
    cls, init = class_of(value["class_path"]), value.get("init_args") or {}
    options = options_of(cls)
    arguments = {
        key: build(init[key], f"{where}.{key}") if slot_of(options[key]._typehint) else data(init[key])
        for key in _keys(init)
    }
    try:
        for key, argument in arguments.items():  # a model may be named by its file
            if isinstance(argument, str) and "models" in getattr(slot_of(options[key]._typehint), "groups", ()):
                arguments[key] = load_model(argument)
        return registry.construct(cls, **arguments, **data(value.get("dict_kwargs") or {}))
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


def data(value: Any) -> Any:
    """Turns a parsed value into plain data without building anything."""
    if isinstance(value, Mapping | Namespace):
        return {key: data(value[key]) for key in _keys(value)}
    return [data(item) for item in value] if isinstance(value, list) else value


def _keys(value: Mapping[str, Any] | Namespace) -> list[str]:
    return list(value if isinstance(value, Mapping) else vars(value))


def fill(model: Any, data: ImageData, task: str | None) -> str:
    """Fills in ``image_size``, ``channels`` and ``num_classes`` of the model's classes from data and task.

    Args:
        model: The parsed model, changed in place.
        data: The data.
        task: Name of the task, or None to infer it: conditional when the model's classes are given, or those of the
            teacher or start whose network it takes, else unconditional.

    Returns:
        Name of the task.

    Raises:
        UserError: a given value that contradicts data or task, images that are not square, an unknown task.
    """
    takers = [(where, spec) for where, spec in specs(model, "model") if _sizes_of(spec)]
    source = _copied_source(model)
    if task is None:
        labelled = any(spec["init_args"].get("num_classes") for _, spec in takers)
        task = "conditional" if labelled or (source is not None and source.denoiser.num_classes) else "unconditional"
    chosen, mode = registry.load("tasks", task)(), class_of(model["class_path"])
    if chosen.mode is not None and not issubclass(mode, registry.load("modules", chosen.mode)):
        raise UserError(f"--task {task} trains with {chosen.mode}, not {mode.__name__}; type --model {chosen.mode}")
    classes = chosen.num_classes(data.num_classes, None if source is None else source.denoiser.num_classes)
    if source is not None and source.denoiser.num_classes != classes:
        raise UserError(
            f"model.{source.role} has {source.denoiser.num_classes} classes, but --task {task} on "
            f"{type(data).__name__} has {classes}; name another {source.role}: --model.{source.role} PATH, or another "
            "task"
        )
    for where, spec in takers:
        channels, height, width = data.image_shape
        if height != width and "image_size" in _sizes_of(spec) and not _takes_pairs(class_of(spec["class_path"])):
            name = class_of(spec["class_path"]).__name__
            raise UserError(
                f"images of {type(data).__name__} are {height}x{width}, {name} takes square ones; "
                f"type --data.resize {min(height, width)}"
            )
        for size, value in zip(
            _SIZES, (height if height == width else [height, width], channels, classes), strict=True
        ):
            if size in _sizes_of(spec):
                _set_size(where, spec["init_args"], size, value, data, task)
    return task


def _copied_source(model: Any) -> Source | None:
    """The teacher or start in a file whose network the model takes, because none was named."""
    arguments = model.get("init_args") or {}
    role, path = learnt_from(model)
    return Source(path, role) if path and arguments.get("network") is None else None


def learnt_from(model: Any) -> tuple[str, str | None]:
    """Returns the argument that names what a parsed model learns from, and the path there; None where there is none."""
    role = getattr(class_of(model["class_path"]), "takes_over_from", None) or ""
    path = (model.get("init_args") or {}).get(role)
    return role, path if isinstance(path, str) else None


def _sizes_of(spec: Any) -> list[str]:
    parameters = inspect.signature(class_of(spec["class_path"])).parameters
    return [size for size in _SIZES if size in parameters]


def _takes_pairs(cls: type) -> bool:
    """Whether the type of ``image_size`` also takes [height, width]."""
    return any(get_origin(part) is not None for part in get_args(options_of(cls)["image_size"]._typehint))


def _set_size(where: str, arguments: Any, size: str, value: int, data: ImageData, task: str) -> None:
    present = arguments.get(size)
    if present is None:
        arguments[size] = value
    elif present != value:
        source = f"--task {task} on {type(data).__name__}" if size == "num_classes" else type(data).__name__
        raise UserError(
            f"{where}.{size} is {present}, but {source} has {value}; leave it out, or type --{where}.{size} {value}"
        )


def _loggers(trainer: Any) -> Iterator[Any]:
    """The loggers among the trainer's settings that write into a folder."""
    for where, spec in specs(trainer.get("logger"), "logger"):
        if where.count(".") == 0 and "save_dir" in options_of(class_of(spec["class_path"])):
            spec["init_args"] = spec.get("init_args") or Namespace()
            yield spec


def leave_folder_open(trainer: Any) -> None:
    """Lets loggers without a folder pass the parser's check; :func:`put_into_folder` gives them theirs."""
    for spec in _loggers(trainer):
        if spec["init_args"].get("save_dir") in (None, "."):
            spec["init_args"]["save_dir"] = ""


def put_into_folder(trainer: Any, folder: Path) -> None:
    """Gives loggers without a folder the run's own, where their files lie side by side with the run's."""
    for spec in _loggers(trainer):
        arguments, options = spec["init_args"], options_of(class_of(spec["class_path"]))
        if arguments["save_dir"] != "":
            continue
        arguments["save_dir"] = str(folder)
        if "name" in options and arguments.get("name", _USUAL) == _USUAL:
            arguments["name"], arguments["version"] = "", ""
