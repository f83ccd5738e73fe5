"""What this user named himself, data and models that he trained with: those a file that he was sent may name, too.

One rule for all that a file names outside of itself: it is read only where the user typed it in this command, in a
config that he named too, or trained with it here before.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from repro.errors import UserError
from repro.files import cache_folder, write_text
from repro.records import is_record, record_of
from repro.registry import Plugin

__all__ = ["remember", "remember_model", "was_named", "was_trained_on"]


def remember(data: Plugin) -> None:
    """Remembers that this user trained on these data, so that banks and checkpoints may name them."""
    with contextlib.suppress(UserError):
        record = record_of(data)
        while is_record(record):
            write_text(cache_folder("trained_on") / _name(record), json.dumps(record))
            record = record["args"].get("of")


def was_trained_on(record: dict[str, Any]) -> bool:
    """Says whether this user trained on the data of a record here before, or on another cut of the same set."""
    return (cache_folder("trained_on", make=False) / _name(record)).is_file()


def remember_model(path: str) -> None:
    """Remembers that this user named a model's file as the teacher or start of a training."""
    with contextlib.suppress(UserError):
        write_text(cache_folder("trained_on") / _name_of_model(path), path)


def was_named(path: str) -> bool:
    """Says whether this user named a model's file as a teacher or start here before."""
    return (cache_folder("trained_on", make=False) / _name_of_model(path)).is_file()


def _name_of_model(path: str) -> str:
    return hashlib.sha256(f"model {os.path.abspath(os.path.expanduser(path))}".encode()).hexdigest()


def _name(record: dict[str, Any]) -> str:
    """The same for all cuts of one set: which of its images are taken reaches no further."""
    return hashlib.sha256(json.dumps(_whereabouts(record), sort_keys=True).encode()).hexdigest()


def _whereabouts(record: dict[str, Any]) -> dict[str, Any]:
    args = record["args"]
    paths = {key: os.path.abspath(os.path.expanduser(str(args[key]))) for key in ("path", "root") if args.get(key)}
    return {"name": record["name"], "of": _whereabouts(args["of"]) if args.get("of") else None, **paths}
