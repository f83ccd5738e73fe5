"""Which data this user trained on himself: those a file that he was sent may name, too."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from repro.errors import UserError
from repro.files import cache_folder, write_text
from repro.records import record_of
from repro.registry import Plugin

__all__ = ["remember", "was_trained_on"]


def remember(data: Plugin) -> None:
    """Remembers that this user trained on these data, so that banks and checkpoints may name them."""
    with contextlib.suppress(UserError):
        record = record_of(data)
        write_text(cache_folder("trained_on") / _name(record), json.dumps(record))


def was_trained_on(record: dict[str, Any]) -> bool:
    """Says whether this user trained on the data of a record here before, or on another cut of the same set."""
    return (cache_folder("trained_on", make=False) / _name(record)).is_file()


def _name(record: dict[str, Any]) -> str:
    """The same for all cuts of one set: which of its images are taken reaches no further."""
    return hashlib.sha256(json.dumps(_whereabouts(record), sort_keys=True).encode()).hexdigest()


def _whereabouts(record: dict[str, Any]) -> dict[str, Any]:
    args = record["args"]
    paths = {key: os.path.abspath(os.path.expanduser(str(args[key]))) for key in ("path", "root") if args.get(key)}
    return {"name": record["name"], "of": _whereabouts(args["of"]) if args.get("of") else None, **paths}
