"""What the folders of a set mean: classes, or nothing; and the file of labels of EDM's data sets."""

from __future__ import annotations

import itertools
import re
from pathlib import PurePosixPath

from repro.data.members import LABEL_FILE, Members
from repro.data.names import clean_name, natural_order
from repro.errors import UserError
from repro.files import parse_json

__all__ = ["CLASS_LIMIT", "classes_of", "is_label_file", "labels_in_file"]

CLASS_LIMIT = 2**20
"""Labels of a label file are below this."""
_INDEX_DIGITS = 4


def is_label_file(name: str) -> bool:
    """Says whether a member is a file of labels, in whatever folder it lies."""
    return name.rpartition("/")[2] == LABEL_FILE


def labels_in_file(members: Members, names: list[str]) -> list[int] | None:
    """Reads the label of every image from ``dataset.json``; empty when it says null, None without such a file.

    The file is ``{"labels": [[name, integer], ...]}``, its names relative to the folder that it lies in, which holds
    all images.

    Raises:
        UserError: several such files, one beside which no image lies, one of another form, or an image without label.
    """
    files = [name for name in members.names if is_label_file(name)]
    if not files:
        return None
    where = f"{members.path}: {files[0]}"
    if len(files) > 1:
        raise UserError(f"{where} and {files[1]} are both files of labels; keep one, or give --data.labelled false")
    folder = files[0].removesuffix(LABEL_FILE)
    outside = next((name for name in names if not name.startswith(folder)), None)
    if outside is not None:
        raise UserError(
            f"{where} lies in another folder than image {outside!r}; move it to the top of the set, or give "
            "--data.labelled false"
        )
    try:
        pairs = parse_json(members.read(files[0]), where)["labels"]
        if pairs is None:
            return []
        by_name = {clean_name(name): label for name, label in pairs}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{where} is not of the form {{"labels": [[name, integer], ...]}}') from error
    labels = []
    for name in names:
        label = by_name.get(name.removeprefix(folder))
        if label is None:
            raise UserError(f"{where} gives no label for image {name!r}; add it, or give --data.labelled false")
        if type(label) is not int or not 0 <= label < CLASS_LIMIT:
            raise UserError(f"{where} gives {name!r} the label {label!r:.40}; labels are 0, 1, 2, ...")
        labels.append(label)
    return labels


def classes_of(path: str, names: list[str]) -> tuple[list[int], list[str]]:
    """Returns the class of every image by the folder it lies in, and the names of the classes in natural order.

    Images at the top have no classes. Folders that only cut a numbered series into pieces (``00000/img00000999.png``,
    ``00001/img00001000.png``, ...) are no classes either.

    Args:
        path: Of the set, for errors.
        names: Relative names of the images.

    Raises:
        UserError: an image outside of the class folders.

    Example:
        >>> classes_of("set", ["10/a.png", "2/a.png"])
        ([1, 0], ['2', '10'])
    """
    folders = [name.split("/")[-2] if "/" in name else "" for name in names]
    if not any(folders) or _are_pieces(names, folders):
        return [0] * len(names), []
    if "" in folders:
        raise UserError(
            f"{path}: image {names[folders.index('')]!r} lies outside of the class folders; move it into one, "
            "or give --data.labelled false"
        )
    classes = sorted(set(folders), key=natural_order)
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[folder] for folder in folders], classes


def _are_pieces(names: list[str], folders: list[str]) -> bool:
    """Whether the folders are numbers like 00000, and the numbers of the images go on from each to the next."""
    widths = {len(folder) for folder in folders}
    if len(widths) > 1 or min(widths) < _INDEX_DIGITS or not all(folder.isdecimal() for folder in folders):
        return False
    if not any(folder.startswith("0") for folder in folders):  # years, say
        return False
    ranges: dict[int, list[int]] = {}
    for name, folder in zip(names, folders, strict=True):
        digits = re.findall(r"\d+", PurePosixPath(name).stem)
        if len(digits) != 1:
            return False
        ranges.setdefault(int(folder), []).append(int(digits[0]))
    ordered = [ranges[folder] for folder in sorted(ranges)]
    return all(max(one) < min(following) for one, following in itertools.pairwise(ordered))
