"""The manifest of a sample bank: what it holds and where it came from, as plain JSON."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from repro.errors import UserError, unknown
from repro.files import locked, read_json, write_text
from repro.noise import parse_seeds
from repro.records import differences, fits

__all__ = ["MANIFEST_NAME", "Manifest", "add_checksums", "format_seeds", "read_manifest", "write_manifest"]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
_MOST_SEEDS = 20_000_000
_PROVENANCE = ("source", "repro_version", "shard_size")
_SHARD_NAME = re.compile(r"(images|labels)-\d{8}\.npy")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def format_seeds(seeds: Sequence[int]) -> str:
    """Writes seeds as text such as ``0-9``, in their order; :func:`repro.noise.parse_seeds` reads it back.

    Example:
        >>> format_seeds([0, 1, 2, 3, 8, 5])
        '0-3,8,5'
    """
    values = np.asarray(seeds, dtype=np.int64)
    cuts: np.ndarray = np.flatnonzero(np.diff(values) != 1) + 1
    runs = np.split(values, cuts) if len(values) else []
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a bank holds and where it came from.

    Two banks hold the same samples when all keys agree except ``source``, ``repro_version``, ``shard_size`` and
    ``checksums``, which only say how they came about.

    Args:
        seeds: Number of each noise, every one once; their order is the order of the images.
        image_shape: (C, H, W).
        model: Record of the model as :func:`repro.records.record_of` gives it, or None for images from elsewhere.
        model_fingerprint: Hash of the weights that sampled.
        source: Where the model came from: a checkpoint, a run, an address. Only told, never opened.
        sampler: Record of the sampler.
        kernel: Record of the kernel.
        guidance: Scale of classifier-free guidance; 1 is none.
        task: What was drawn for each noise.
        labels: None, or a mapping with ``num_classes`` and, when each noise is drawn under several labels,
            ``images_per_seed`` (the images of one noise are consecutive), ``classes`` where not all were drawn, and
            ``class_names`` where they are known.
        data: Record of the training data.
        data_fingerprint: Hash of the training images.
        extra: More plain data of the task.
        shard_size: Seeds a file.
        repro_version: Version of this package that drew the bank; filled in.
        checksums: SHA-256 of the array in each file of the bank that is there, by its name; None for a bank without.
    """

    seeds: list[int]
    image_shape: tuple[int, int, int]
    model: dict[str, Any] | None = None
    model_fingerprint: str = ""
    source: str = ""
    sampler: dict[str, Any] | None = None
    kernel: dict[str, Any] | None = None
    guidance: float = 1.0
    task: str = "unconditional"
    labels: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    data_fingerprint: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    shard_size: int = 500
    repro_version: str = ""
    checksums: dict[str, str] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "seeds", parse_seeds(list(self.seeds)))
        object.__setattr__(self, "image_shape", tuple(int(size) for size in self.image_shape))
        if not self.repro_version:
            object.__setattr__(self, "repro_version", _version())
        for key, legal in _KINDS.items():
            if not isinstance(getattr(self, key), legal):
                raise UserError(f"manifest: {key} is {getattr(self, key)!r:.80}; that is no {legal[0].__name__}")
        if len(self.image_shape) != 3 or min(self.image_shape) < 1:
            raise UserError(f"manifest: image_shape is {list(self.image_shape)}; give (C, H, W), each at least 1")
        if self.shard_size < 1:
            raise UserError(f"manifest: shard_size is {self.shard_size}; give at least 1")
        if self.labels is not None and not (_is_count(self.num_classes) and _is_count(self.images_per_seed)):
            raise UserError(f"manifest: labels are {self.labels!r:.80}; they need num_classes of at least 1")
        named = (self.labels or {}).get("class_names", [])
        if not fits(named, list[str]) or len(named) not in (0, self.num_classes):
            raise UserError(f"manifest: class_names are {named!r:.80}; give one a class, as text")
        for name, value in (self.checksums or {}).items():
            if not (_SHARD_NAME.fullmatch(name) and isinstance(value, str) and _SHA256.fullmatch(value)):
                raise UserError(f"manifest: checksum {value!r:.70} of {name!r:.40} is not the SHA-256 of a shard")

    @property
    def num_classes(self) -> int:
        """Number of classes of the labels, 0 for an unconditional bank."""
        return (self.labels or {}).get("num_classes", 0)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers, empty when they are not known."""
        return tuple((self.labels or {}).get("class_names", ()))

    @property
    def images_per_seed(self) -> int:
        """Images of each noise, one unless the bank draws a noise under several labels."""
        return (self.labels or {}).get("images_per_seed", 1)

    def record(self) -> dict[str, Any]:
        """Turns the manifest into plain JSON data, seeds as text, without checksums; :meth:`from_record` reads it."""
        plain = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "checksums"}
        plain |= {"seeds": format_seeds(self.seeds), "image_shape": list(self.image_shape)}
        try:
            return {"format": FORMAT} | json.loads(json.dumps(plain, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise UserError(f"manifest: only plain JSON data can be kept ({error})") from error

    @classmethod
    def from_record(cls, record: Any) -> Manifest:
        """Makes a manifest of plain data that may come from anybody, checking every key.

        Raises:
            UserError: another format, a missing or unknown key, or a value that is not what the key stands for.
        """
        if not isinstance(record, dict) or "format" not in record:
            raise UserError("manifest: this is not the manifest of a sample bank")
        if record["format"] != FORMAT:
            raise UserError(
                f"manifest: format {record['format']!r:.20} is unknown; this version of repro reads {FORMAT}"
            )
        values = {key: value for key, value in record.items() if key != "format"}
        known = [item.name for item in fields(cls)]
        for key in values:
            if key not in known:
                raise unknown("manifest key", key[:40], known)
        for key in ("seeds", "image_shape"):
            if key not in values:
                raise UserError(f"manifest: {key} is missing")
        shape = values["image_shape"]
        if not (isinstance(shape, list) and all(_is_count(size) for size in shape)):
            raise UserError(f"manifest: image_shape is {shape!r:.80}; give [C, H, W]")
        return cls(**values | {"seeds": _read_seeds(values["seeds"])})

    def differences(self, other: Manifest) -> list[str]:
        """Lists what keeps two banks from holding the same samples: ``key is A there and B here``, one text a key."""
        mine, theirs = self.record(), other.record()
        return [
            f"{where} is {_brief(there)} there and {_brief(here)} here"
            for key in mine
            if key not in _PROVENANCE
            for where, (there, here) in differences(mine[key], theirs[key], key).items()
        ]


_KINDS: dict[str, tuple[type, ...]] = {
    "model": (dict, type(None)),
    "model_fingerprint": (str,),
    "source": (str,),
    "sampler": (dict, type(None)),
    "kernel": (dict, type(None)),
    "guidance": (float, int),
    "task": (str,),
    "labels": (dict, type(None)),
    "data": (dict, type(None)),
    "data_fingerprint": (str,),
    "extra": (dict,),
    "shard_size": (int,),
    "repro_version": (str,),
    "checksums": (dict, type(None)),
}


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1 << 31


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}...{text[-15:]}"


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("repro")
    except PackageNotFoundError:
        return "unknown"


def _read_seeds(text: Any) -> list[int]:
    """Seeds of an untrusted manifest: counted before they are expanded."""
    if not isinstance(text, str):
        raise UserError(f"manifest: seeds are {text!r:.80}; they are text such as 0-9999")
    total = 0
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 40:
            raise UserError(f"manifest: cannot read seeds {part!r:.60}; they are text such as 0-9999")
        total += max(0, int(last or first) - int(first) + 1)
        if total > _MOST_SEEDS or int(last or first) >= 1 << 63:
            raise UserError(f"manifest: seeds {part!r:.60} are too many; a bank holds at most {_MOST_SEEDS:,}")
    return parse_seeds(text)


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest of the bank in a folder, which may come from anybody.

    Raises:
        UserError: there is none, it is damaged, it was changed after it was written, or it says something that cannot
            be.
    """
    if not (path / MANIFEST_NAME).is_file():
        raise UserError(
            f"no sample bank at {path}: it holds no {MANIFEST_NAME}; draw one with repro predict --seeds 0-999"
        )
    record = read_json(path / MANIFEST_NAME, "manifest")
    checksum = record.pop("checksum", None) if isinstance(record, dict) else None
    try:
        manifest = Manifest.from_record(record)
    except UserError as error:
        raise UserError(f"bank {path}: {error}") from error
    if checksum not in (None, _checksum(record)):
        raise UserError(
            f"bank {path}: manifest.json was changed after it was written; get the bank again, or remove the line "
            '"checksum" from it if the change is yours'
        )
    return manifest


def write_manifest(path: Path, manifest: Manifest, overwrite: bool = True) -> None:
    """Writes the manifest of the bank in a folder, with its own checksum, whole or not at all.

    Raises:
        FileExistsError: there is one, and ``overwrite`` is False.
        UserError: it cannot be written.
    """
    record = manifest.record()
    if manifest.checksums is not None:
        record |= {"checksums": manifest.checksums}
    _write_record(path, record, overwrite)


def _write_record(path: Path, record: dict[str, Any], overwrite: bool = True) -> None:
    if "checksums" in record:
        record["checksum"] = _checksum(record)
    write_text(path / MANIFEST_NAME, json.dumps(record, indent=1), overwrite)


def add_checksums(path: Path, checksums: dict[str, str]) -> None:
    """Adds the SHA-256 of files that are on the disk to the manifest; processes that write one bank take turns."""
    with locked(path / MANIFEST_NAME):
        record = read_json(path / MANIFEST_NAME, "manifest")
        if record.pop("checksum", None) != _checksum(record):
            raise UserError(f"bank {path}: manifest.json was changed by another program; name another folder")
        record["checksums"] = dict(sorted((record["checksums"] | checksums).items()))
        _write_record(path, record)


def _checksum(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()
