"""What a folder means: classes in the order people expect, or none; names equal to people are equal."""

from __future__ import annotations

import json
import tarfile
import unicodedata
import zipfile

import numpy as np
import pytest
from image_files import encoded, pictures, write_folder, write_tar, write_zip

from repro.data import ImageArchive
from repro.data.labels import classes_of
from repro.errors import UserError

PICTURE = encoded(pictures(1)[0])


def _of(path, **options):
    return ImageArchive(str(path), cache=False, **options)


def test_class_folders_are_numbered_in_natural_order(tmp_path):
    files = {f"{k}/a.png": encoded(np.full((8, 8), 20 * k, np.uint8)) for k in range(12)}
    data = _of(write_folder(tmp_path, files))
    assert data.class_names == tuple(map(str, range(12)))
    assert {
        int(image[0, 0, 0]) // 20: label for image, label in zip(data.images(), data.labels().tolist(), strict=True)
    } == {k: k for k in range(12)}


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["00000/img00000000.png", "00000/img00000999.png", "00001/img00001000.png"], []),
        (["00000/000000001.jpg", "00001/000010000.jpg", "00017/000170003.jpg"], []),
        (["d/0000/1.png", "d/0001/2.png"], []),
        (["00000/00000_00000.ppm", "00001/00000_00000.ppm"], ["00000", "00001"]),
        (["00000/1.png", "00001/1.png"], ["00000", "00001"]),
        (["2019/IMG_0001.jpg", "2020/IMG_0501.jpg"], ["2019", "2020"]),
        (["0/1.png", "1/2.png"], ["0", "1"]),
        (["00000/a.png", "00001/b.png"], ["00000", "00001"]),
    ],
)
def test_folders_that_cut_a_numbered_series_into_pieces_are_no_classes(names, classes):
    assert classes_of("set", names)[1] == classes


def test_folders_that_systems_leave_are_passed_over(tmp_path):
    left = (
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "lost+found",
        "__MACOSX",
        ".ipynb_checkpoints",
        "System Volume Information",
    )
    files = {f"cat/{i}.png": encoded(image) for i, image in enumerate(pictures(3))}
    junk = {f"{folder}/x.png": PICTURE for folder in left} | {f"cat/{folder}/0.png": b"thumbnail" for folder in left}
    for path in (write_folder(tmp_path / "folder", files | junk), write_zip(tmp_path / "a.zip", files | junk)):
        data = _of(path)
        assert (len(data), data.class_names) == (3, ("cat",))


def _edm(folder=""):
    files = {f"{folder}00000/img{i:08d}.png": encoded(image) for i, image in enumerate(pictures(6))}
    table = {"labels": [[f"00000/img{i:08d}.png", i % 3] for i in range(6)]}
    return files, json.dumps(table).encode()


@pytest.mark.parametrize("folder", ["", "d/", "d/e/"])
def test_a_label_file_is_read_from_the_folder_that_holds_all_images(folder, tmp_path):
    files, table = _edm(folder)
    for path in (
        write_folder(tmp_path / "set", files | {f"{folder}dataset.json": table}),
        write_zip(tmp_path / "set.zip", files | {f"{folder}dataset.json": table}),
    ):
        data = _of(path)
        assert data.class_names == ("0", "1", "2")
        assert sorted(data.labels().tolist()) == [0, 0, 1, 1, 2, 2]
        assert _of(path, labelled=False).num_classes == 0


def test_a_label_file_elsewhere_is_refused_by_its_name(tmp_path):
    files, table = _edm("images/")
    path = write_folder(tmp_path / "set", files | {"labels/dataset.json": table})
    with pytest.raises(
        UserError, match=r"labels/dataset\.json lies in another folder than image 'images/.*top of the set"
    ):
        len(_of(path))
    double = write_folder(tmp_path / "double", files | {"images/dataset.json": table, "dataset.json": table})
    with pytest.raises(UserError, match=r"dataset\.json and images/dataset\.json are both files of labels"):
        len(_of(double))
    assert len(_of(double, labelled=False)) == 6


def test_names_of_a_label_file_are_those_of_the_images_however_they_are_written(tmp_path):
    accent = unicodedata.normalize("NFD", "caf\u00e9")
    files = {f"{accent}/{i}.png": encoded(image) for i, image in enumerate(pictures(2))}
    table = json.dumps({"labels": [["./caf\u00e9/0.png", 1], ["caf\u00e9\\1.png", 0]]}).encode()
    data = _of(write_folder(tmp_path / "set", files | {"dataset.json": table}))
    assert sorted(data.labels().tolist()) == [0, 1]


def test_one_name_in_two_spellings_is_one_class(tmp_path):
    composed, split = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    assert composed != split
    files = {f"{composed}/0.png": PICTURE, f"{split}/1.png": PICTURE}
    with tarfile.open(write_tar(tmp_path / "set.tar", files)) as archive:
        assert len(archive.getnames()) == 2
    for path in (tmp_path / "set.tar", write_folder(tmp_path / "set", files), write_zip(tmp_path / "set.zip", files)):
        assert _of(path).class_names == (composed,)
    both = {f"{composed}/0.png": PICTURE, f"{split}/0.png": PICTURE}
    for path in (write_tar(tmp_path / "both.tar", both), write_folder(tmp_path / "both", both)):
        with pytest.raises(UserError, match=r"two (members|files) are named 'caf\u00e9/0.png'"):
            len(_of(path))


def test_a_zip_whose_names_are_utf8_without_saying_so(tmp_path):
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("caf\u00e9/0.png", "\u732b/1.png"):
            archive.writestr(name, PICTURE)
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):  # the flag of UTF-8, in both headers of a member
        at = data.find(mark)
        while at >= 0:
            data[at + offset] &= ~0x08
            at = data.find(mark, at + 1)
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist()[0] != "caf\u00e9/0.png"
    assert _of(path).class_names == ("caf\u00e9", "\u732b")
