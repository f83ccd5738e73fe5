"""Data that a record in a file names: a stranger's bank or checkpoint must not choose what is read on this machine."""

from __future__ import annotations

import contextlib
from typing import Any

from repro.data.base import ImageData
from repro.data.trust import was_trained_on
from repro.errors import Outside, UserError
from repro.records import flat, rebuild

__all__ = ["recorded_data"]


def recorded_data(record: Any, whose: str, option: str = "--train") -> ImageData:
    """Builds the data set of a record that came with a file, unless it would read what that file has no right to.

    Data that need no file (``Digits``, ``LowRankMixture``) are built. Those that are read from a path are built only
    when this user trained on them here before (:mod:`repro.data.trust`). Well-known sets without a path of their own
    are looked for in the cache folder, and not downloaded.

    Args:
        record: As :func:`repro.records.record_of` gives it.
        whose: What the record came with, for the error.
        option: What the user types to name the data himself, for the error.

    Raises:
        UserError: no record of data, or data outside of the file that nobody trained on here.
    """
    if not isinstance(record, dict) or record.get("group") != "data":
        raise UserError(f"{whose} names no data set as its training data; name one with {option}")
    if was_trained_on(record):
        return rebuild(record, "data")
    with contextlib.suppress(Outside):
        return rebuild(record, "data", reach=False)
    settings = {key: value for key, value in flat(record, option).items() if value is not None}
    words = " ".join(f"{key} {value}" for key, value in list(settings.items())[:2])
    raise UserError(
        f"{whose} names images outside of it as its training data, which are not read unasked; if you trust it, "
        f"type for example {words}"
    )
