from __future__ import annotations

import io
import re
import stat
import struct
import tarfile
import zipfile
import zlib

import pytest
from image_files import encoded, pictures, write_folder, write_tar, write_zip

import repro.data.archive
import repro.data.members
from repro.data.archive import ImageArchive
from repro.errors import UserError

GOOD = encoded(pictures(1)[0])


def _load(path):
    data = ImageArchive(str(path))
    data.prepare_data()
    data.setup()


def _refusal(path):
    """The one line with which a set is refused before training."""
    with pytest.raises(UserError) as told:
        _load(path)
    message = str(told.value)
    assert "\n" not in message
    assert str(path.name) in message
    return message


@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "a/../../evil.png", "..\\evil.png", "C:\\evil.png"])
@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_a_name_that_leaves_the_archive_is_refused(name, form, tmp_path):
    path, files = tmp_path / f"set.{form}", {"a/0.png": GOOD, name: GOOD}
    if form == "zip":
        write_zip(path, files)
    else:
        write_tar(path, files, "w:gz" if form == "tar.gz" else "w")
    assert f"member {name!r} points outside of the archive" in _refusal(path)
    assert sorted(item.name for item in tmp_path.iterdir()) == [path.name]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
@pytest.mark.parametrize("mode", ["w", "w:xz"])
def test_links_and_devices_in_a_tar_are_refused(kind, mode, tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, mode) as archive:
        good = tarfile.TarInfo("a/0.png")
        good.size = len(GOOD)
        archive.addfile(good, io.BytesIO(GOOD))
        special = tarfile.TarInfo("a/1.png")
        special.type, special.linkname = kind, "/etc/passwd"
        archive.addfile(special)
    assert "member 'a/1.png' is a link or a device" in _refusal(path)


def test_a_link_in_a_zip_is_refused(tmp_path):
    path = tmp_path / "set.zip"
    info = zipfile.ZipInfo("a/1.png")
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert "member 'a/1.png' is a link or a device" in _refusal(path)


@pytest.mark.parametrize("form", ["zip", "tar.xz"])
def test_a_bomb_of_many_members_is_refused_before_it_unpacks(form, tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.members, "RATIO_FREE", 2**20)
    files = {f"a/{i}.png": bytes(2**19) for i in range(8)}
    path = tmp_path / f"bomb.{form}"
    write_zip(path, files) if form == "zip" else write_tar(path, files, "w:xz")
    assert path.stat().st_size < 2**14
    assert "unpacks to more than 100 times its size" in _refusal(path)


def test_a_bomb_outside_of_the_images_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.members, "RATIO_FREE", 2**20)
    path = write_tar(tmp_path / "bomb.tar.xz", {"0.png": GOOD, "padding.bin": bytes(2**24), "1.png": GOOD}, "w:xz")
    assert "unpacks to more than 100 times its size" in _refusal(path)


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_a_huge_member_is_refused_by_what_it_declares(form, tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.members, "FILE_LIMIT", 10_000)
    path, files = tmp_path / f"set.{form}", {"0.png": GOOD, "1.png": bytes(10_001)}
    write_zip(path, files) if form == "zip" else write_tar(path, files, "w:gz" if form == "tar.gz" else "w")
    assert "member '1.png' has 10,001 bytes; at most 10,000 an image are read" in _refusal(path)


def test_a_huge_file_in_a_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.members, "FILE_LIMIT", 10_000)
    folder = write_folder(tmp_path / "set", {"0.png": GOOD, "1.png": bytes(10_001)})
    assert "more than the 10,000 bytes" in _refusal(folder)


def test_a_zip_member_that_holds_more_than_it_declares_is_refused(tmp_path):
    path = write_zip(tmp_path / "liar.zip", {"0.png": GOOD + bytes(5000)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.index(signature) + offset, len(GOOD))
    path.write_bytes(data)
    assert re.search("0.png.*cannot be read", _refusal(path))


def test_a_huge_tar_header_is_refused(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 2**21}) as archive:
        info = tarfile.TarInfo("0.png")
        info.size = len(GOOD)
        archive.addfile(info, io.BytesIO(GOOD))
    assert "a header of 2,097" in _refusal(path)


def test_too_many_images_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.members, "COUNT_LIMIT", 3)
    files = {f"{i}.png": GOOD for i in range(4)}
    for path in (
        write_folder(tmp_path / "folder", files),
        write_zip(tmp_path / "set.zip", files),
        write_tar(tmp_path / "set.tar", files),
    ):
        assert "holds more than 3 images" in _refusal(path)


def test_a_packed_tar_beyond_memory_says_to_unpack_it(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.members, "PACKED_LIMIT", len(GOOD) * 3)
    path = write_tar(tmp_path / "set.tar.gz", {f"{i}.png": GOOD for i in range(4)}, "w:gz")
    assert "unpack it and give the folder" in _refusal(path)


def _png_of(width, height):
    """A PNG that declares a size and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("size", [(9000, 9000), (12_000, 12_000), (60_000, 60_000)])
def test_an_image_of_too_many_pixels_is_refused_without_decoding(size, tmp_path, recwarn):
    path = write_zip(tmp_path / "set.zip", {"0.png": _png_of(*size)})
    assert re.search(r"image '0.png' (is \d+x\d+; at most 67,108,864 pixels|cannot be decoded: .*bomb)", _refusal(path))
    assert not recwarn.list


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
@pytest.mark.parametrize("keep", [0, 3, 20, 0.5, -9])
def test_a_truncated_image_is_named(suffix, keep, tmp_path):
    whole = encoded(pictures(1, 16, 16)[0], suffix)
    cut = whole[: int(len(whole) * keep) if isinstance(keep, float) else keep]
    files = {f"a/{i}{suffix}": encoded(image, suffix) for i, image in enumerate(pictures(3, 16, 16))}
    path = write_zip(tmp_path / "set.zip", files | {f"a/2{suffix}": cut})
    if suffix == ".png" and keep == -9:
        assert len(ImageArchive(str(path)).images()) == 3  # only the end mark is missing: every pixel is there
    else:
        assert f"'a/2{suffix}'" in _refusal(path)


def test_something_else_that_is_called_an_image_is_named(tmp_path):
    folder = write_folder(tmp_path / "set", {"a/0.png": GOOD, "a/1.png": b"<html>not found</html>"})
    assert "'a/1.png' is not an image of a known format" in _refusal(folder)


@pytest.mark.parametrize("mode", ["w", "w:xz", "w:gz", "w:bz2"])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.85])
def test_a_truncated_tar_is_refused(mode, keep, tmp_path):
    files = {f"a/{i:03d}.png": encoded(image) for i, image in enumerate(pictures(40, 20, 20))}
    path = write_tar(tmp_path / "set.tar", files, mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    assert "cannot be read" in _refusal(path)


def test_a_tar_cut_between_two_members_is_refused(tmp_path):
    path = write_tar(tmp_path / "set.tar", {f"{i}.png": GOOD for i in range(5)})
    with tarfile.open(path) as archive:
        third = archive.getmembers()[3].offset
    path.write_bytes(path.read_bytes()[:third])
    assert "where a member or the end mark should be" in _refusal(path)


@pytest.mark.parametrize("mode", ["w", "w:xz"])
def test_a_tar_with_a_spoilt_header_in_the_middle_is_refused(mode, tmp_path):
    plain = write_tar(tmp_path / "plain.tar", {f"{i}.png": GOOD for i in range(5)})
    with tarfile.open(plain) as archive:
        third = archive.getmembers()[3].offset
    data = bytearray(plain.read_bytes())
    data[third + 3] ^= 0xFF
    path = tmp_path / "set.tar"
    if mode == "w:xz":
        import lzma

        path.write_bytes(lzma.compress(bytes(data)))
    else:
        path.write_bytes(data)
    assert "where a member or the end mark should be" in _refusal(path)


def test_a_spoilt_byte_in_a_packed_tar_is_noticed(tmp_path):
    files = {f"{i}.png": encoded(image) for i, image in enumerate(pictures(40, 20, 20))}
    for mode in ("w:xz", "w:gz", "w:bz2"):
        path = write_tar(tmp_path / "set.tar", files, mode)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0x10
        path.write_bytes(data)
        assert "cannot be read" in _refusal(path)


def test_a_truncated_or_spoilt_zip_is_refused(tmp_path):
    files = {f"{i}.png": encoded(image) for i, image in enumerate(pictures(10, 20, 20))}
    path = write_zip(tmp_path / "set.zip", files)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read: File is not a zip file" in _refusal(path)
    spoilt = bytearray(whole)
    spoilt[len(whole) // 3] ^= 0xFF
    path.write_bytes(spoilt)
    assert re.search(r"\d.png cannot be read", _refusal(path))


def test_an_encrypted_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"0.png": GOOD})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    assert "member '0.png' is encrypted" in _refusal(path)


def test_a_doubled_member_is_refused(tmp_path):
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("a/0.png", "./a/0.png"):
            info = tarfile.TarInfo(name)
            info.size = len(GOOD)
            archive.addfile(info, io.BytesIO(GOOD))
    assert "two members are named 'a/0.png'" in _refusal(path)


def test_no_image_says_what_was_there(tmp_path):
    message = _refusal(write_folder(tmp_path / "set", {"notes.txt": b"", "sub/data.npy": b""}))
    assert "holds no image: none of its 2 files ends in .png .jpg" in message
    (tmp_path / "empty").mkdir()
    assert "none of its 0 files" in _refusal(tmp_path / "empty")
    assert "holds no image" in _refusal(write_zip(tmp_path / "empty.zip", {}))
    assert "holds no image" in _refusal(write_tar(tmp_path / "empty.tar", {"a.txt": b""}))


def test_a_missing_path_names_the_nearest_sibling(tmp_path):
    write_zip(tmp_path / "cifar10-train.zip", {"0.png": GOOD})
    assert str(tmp_path / "cifar10-train.zip") in _refusal(tmp_path / "cifar10-tarin.zip")
    assert "give a folder, zip or tar" in _refusal(tmp_path / "nowhere" / "x")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "image.png").write_bytes(GOOD)
    assert "is neither a folder, a zip nor a tar" in _refusal(tmp_path / "image.png")
    (tmp_path / "empty").write_bytes(b"")
    assert "is neither a folder, a zip nor a tar" in _refusal(tmp_path / "empty")


def test_a_subset_larger_than_the_archive_is_refused(tmp_path):
    path = write_zip(tmp_path / "set.zip", {f"{i}.png": GOOD for i in range(4)})
    with pytest.raises(UserError, match="subset is 5 but ImageArchive has 4 images; give at most 4"):
        ImageArchive(str(path), subset=5).prepare_data()


def test_a_cached_set_is_refused_as_a_fresh_one_is(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.archive, "CACHED_IMAGES", 2)
    files = {f"a/{i}.png": encoded(image) for i, image in enumerate(pictures(6, 16, 16))}
    path = write_zip(tmp_path / "set.zip", files | {"a/3.png": files["a/3.png"][:100]})
    for _ in range(2):
        assert "image 'a/3.png' cannot be decoded" in _refusal(path)
