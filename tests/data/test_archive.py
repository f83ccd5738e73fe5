from __future__ import annotations

import json
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from image_files import encoded, pictures, write_folder, write_tar, write_zip
from PIL import Image, ImageOps

import repro.data.archive
from repro.data.archive import ImageArchive
from repro.data.digits import Digits
from repro.data.order import subset_order
from repro.data.pixels import fit_pixels, to_picture
from repro.errors import UserError


def _tree(suffix=".png", count=12):
    """Files of a tree with two classes, deep and shallow, in no particular order; and the arrays by name."""
    arrays = {}
    for i, array in enumerate(pictures(count)):
        folder = "deep/zebra" if i % 3 else "ant"
        arrays[f"{folder}/{(i * 7) % count:02d}{suffix}"] = array
    return {name: encoded(array, suffix) for name, array in arrays.items()}, arrays


def _in_name_order(data):
    """The images of a whole set put back into name order, by undoing the permutation."""
    return data.images()[torch.from_numpy(np.argsort(subset_order(data.subset_seed, len(data))))]


FORMS = {
    "folder": write_folder,
    "zip": lambda path, files: write_zip(path.with_suffix(".zip"), files),
    "stored": lambda path, files: write_zip(path.with_suffix(".zip"), files, zipfile.ZIP_STORED),
    "tar": lambda path, files: write_tar(path.with_suffix(".tar"), files),
    "xz": lambda path, files: write_tar(path.with_suffix(".tar.xz"), files, "w:xz"),
    "gz": lambda path, files: write_tar(path.with_suffix(".tgz"), files, "w:gz"),
    "bz2": lambda path, files: write_tar(path.with_suffix(".tar.bz2"), files, "w:bz2"),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_tree_is_the_same_data_in_every_form(form, tmp_path):
    files, arrays = _tree()
    extra = {"README.txt": b"not an image", "ant/.hidden.png": b"junk", "__MACOSX/ant/._x.png": b"junk"}
    path = FORMS[form](tmp_path / "set", files | extra)
    data = ImageArchive(str(path))
    names = sorted(arrays)
    assert (len(data), data.image_shape, data.num_classes) == (12, (3, 6, 6), 2)
    assert data.class_names == ("ant", "zebra")
    expected = torch.from_numpy(np.stack([arrays[name].transpose(2, 0, 1) for name in names]))
    assert torch.equal(_in_name_order(data), expected)
    folder = ImageArchive(str(write_folder(tmp_path / "reference", files)))
    assert data.fingerprint() == folder.fingerprint()
    lazy = ImageArchive(str(path), in_memory=False, batch_size=5, workers=2)
    assert all(
        torch.equal(a[0], b[0])
        for a, b in zip(lazy.stream(4), ImageArchive(str(path), batch_size=5).stream(4), strict=True)
    )


def test_two_archives_unpacked_into_one_folder_are_their_union(tmp_path):
    files, _ = _tree(count=10)
    folder = write_folder(tmp_path / "both", dict(list(files.items())[:5]))
    write_folder(folder, dict(list(files.items())[5:]))
    assert len(ImageArchive(str(folder))) == 10
    assert (
        ImageArchive(str(folder)).fingerprint()
        == ImageArchive(str(write_zip(tmp_path / "all.zip", files))).fingerprint()
    )


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".tif", ".ppm"])
def test_lossless_formats_come_back_to_the_byte(suffix, tmp_path):
    array = pictures(1)[0]
    data = ImageArchive(str(write_folder(tmp_path, {f"a{suffix.upper()}": encoded(array, suffix)})))
    assert torch.equal(data.images()[0], torch.from_numpy(array.transpose(2, 0, 1)))


def test_images_at_the_top_have_no_classes(tmp_path):
    folder = write_folder(tmp_path, {f"{i}.png": encoded(image) for i, image in enumerate(pictures(4))})
    data = ImageArchive(str(folder))
    assert (data.num_classes, data.class_names, data.labels().tolist()) == (0, (), [0] * 4)


def test_folders_can_be_ignored(tmp_path):
    files, _ = _tree()
    data = ImageArchive(str(write_folder(tmp_path, files)), labelled=False)
    assert (data.num_classes, set(data.labels().tolist())) == (0, {0})


def test_a_stray_image_beside_the_class_folders_is_named(tmp_path):
    files, _ = _tree()
    folder = write_folder(tmp_path, files | {"preview.png": encoded(pictures(1)[0])})
    with pytest.raises(UserError, match=r"image 'preview.png' lies outside of the class folders; .*labelled false"):
        len(ImageArchive(str(folder)))
    assert len(ImageArchive(str(folder), labelled=False)) == 13


def _edm(count=6):
    names = [f"{i // 4:05d}/img{i:08d}.png" for i in range(count)]
    return names, {name: encoded(image) for name, image in zip(names, pictures(count), strict=True)}


@pytest.mark.parametrize("form", ["folder", "stored", "xz"])
def test_an_edm_data_set_brings_its_labels(form, tmp_path):
    names, files = _edm()
    labels = [3, 0, 1, 0, 3, 1]
    table = json.dumps({"labels": [list(pair) for pair in reversed(list(zip(names, labels, strict=True)))]})
    data = ImageArchive(str(FORMS[form](tmp_path / "edm", files | {"dataset.json": table.encode()})))
    by_bytes = {image.tobytes(): label for image, label in zip(pictures(6), labels, strict=True)}
    assert data.class_names == ("0", "1", "2", "3")
    found = [by_bytes[image.permute(1, 2, 0).numpy().tobytes()] for image in data.images()]
    assert found == data.labels().tolist()


def test_an_edm_data_set_whose_labels_are_null_has_none(tmp_path):
    _, files = _edm()
    data = ImageArchive(str(write_zip(tmp_path / "edm.zip", files | {"dataset.json": b'{"labels": null}'})))
    assert (len(data), data.num_classes) == (6, 0)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"{", "dataset.json is not valid JSON"),
        (b"[" * 100_000, "dataset.json is nested more than 60 deep"),
        (b'{"labels": ' + b"[" * 100 + b"]" * 100 + b"}", "dataset.json is nested more than 60 deep"),
        (b"[1]", "is not of the form"),
        (b'{"labels": [["00000/img00000000.png"]]}', "is not of the form"),
        (b'{"labels": [["00000/img00000000.png", 1]]}', "gives no label for image '00000/img00000001.png'"),
        (b'{"labels": [["00000/img00000000.png", -1]]}', "the label -1; labels are 0, 1, 2"),
        (b'{"labels": [["00000/img00000000.png", 1.5]]}', "the label 1.5; labels are 0, 1, 2"),
    ],
)
def test_a_bad_label_file_is_told_in_one_line(table, message, tmp_path):
    _, files = _edm()
    path = str(write_zip(tmp_path / "edm.zip", files | {"dataset.json": table}))
    with pytest.raises(UserError, match=re.escape(message)):
        len(ImageArchive(path))
    assert len(ImageArchive(path, labelled=False)) == 6


def test_a_grey_set_stays_grey_and_a_mixed_one_becomes_colour(tmp_path):
    grey, colour = pictures(3, channels=1), pictures(1)[0]
    files = {f"{i}.png": encoded(image) for i, image in enumerate(grey)}
    data = ImageArchive(str(write_folder(tmp_path, files)))
    assert data.image_shape == (1, 6, 6)
    assert torch.equal(_in_name_order(data)[:, 0], torch.from_numpy(grey))
    mixed = ImageArchive(str(write_folder(tmp_path, {"9.png": encoded(colour)})))
    expected = np.stack([np.repeat(image[None], 3, 0) for image in grey] + [colour.transpose(2, 0, 1)])
    assert torch.equal(_in_name_order(mixed), torch.from_numpy(expected))


def test_what_is_transparent_shows_the_background_and_palettes_are_resolved(tmp_path, caplog):
    array = pictures(1, channels=4)[0]
    palette = Image.fromarray(pictures(1, seed=5)[0]).quantize(16)
    palette.save(tmp_path / "b.png")
    path = str(write_folder(tmp_path, {"a.png": encoded(array)}))
    for background in (255, 0, 100):
        images = _in_name_order(ImageArchive(path, background=background))
        alpha = array[:, :, 3:].astype(float) / 255
        expected = array[:, :, :3] * alpha + background * (1 - alpha)
        assert np.abs(images[0].permute(1, 2, 0).numpy() - expected).max() <= 1
        table, numbers = np.array(palette.getpalette(), dtype=np.uint8).reshape(-1, 3), np.asarray(palette)
        assert torch.equal(images[1], torch.from_numpy(table[numbers].transpose(2, 0, 1)))
    said = f"{path}: 1 of 2 images have transparent pixels, which show the background 255, for example 'a.png'"
    assert said in [record.getMessage() for record in caplog.records]
    with pytest.raises(UserError, match=r"background is 256; give 0 \(black\) to 255 \(white\)"):
        ImageArchive(path, background=256)


def test_a_transparent_colour_of_a_palette_or_of_rgb_shows_the_background(tmp_path):
    picture = Image.fromarray(np.full((6, 6, 3), 7, np.uint8))
    picture.putpixel((0, 0), (200, 10, 10))
    picture.save(tmp_path / "rgb.png", transparency=(200, 10, 10))
    indexed = picture.quantize(4)
    indexed.save(tmp_path / "palette.png", transparency=indexed.getpixel((0, 0)))
    images = ImageArchive(str(tmp_path)).images()
    assert images[:, :, 0, 0].unique().tolist() == [255]
    assert images[:, :, 1:].unique().tolist() == [7]


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_images_are_turned_as_their_orientation_says(turn, suffix, tmp_path, caplog):
    shown = np.repeat(np.repeat(np.array([[0, 80, 160], [40, 120, 250]], np.uint8), 8, 0), 8, 1)
    undo = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}.get(turn, 1)
    exif, back = Image.Exif(), Image.Exif()
    exif[0x0112], back[0x0112] = turn, undo
    stored = Image.fromarray(shown)
    stored.getexif()[0x0112] = undo
    stored = ImageOps.exif_transpose(stored)
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "jpg" else {}
    stored.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    data = ImageArchive(str(tmp_path), grayscale=True)
    assert data.image_shape == (1, 16, 24)
    assert np.abs(data.images()[0, 0].numpy().astype(int) - shown).max() <= (3 if suffix == "jpg" else 0)
    turned = [record for record in caplog.records if "turned as their EXIF orientation says" in record.getMessage()]
    assert len(turned) == (turn != 1 and suffix != "tif")


def _deep_png(pixels):
    """A PNG of 16 bits a sample: uint16 (H, W, C), C = 1 to 4."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits_are_scaled_to_eight(channels, tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 2**16, (6, 5, channels), dtype=np.uint16)
    if channels in (2, 4):
        pixels[..., -1] = 65535
    data = ImageArchive(str(write_folder(tmp_path, {"a.png": _deep_png(pixels)})))
    colour = pixels[..., : 1 if channels < 3 else 3]
    assert torch.equal(data.images()[0], torch.from_numpy(np.round(colour / 257).astype(np.uint8).transpose(2, 0, 1)))
    assert "1 of 1 images have 16 bits a channel, which are scaled to 8, for example 'a.png'" in caplog.text


@pytest.mark.parametrize("channels", [1, 3])
def test_eight_bits_kept_in_sixteen_are_refused_instead_of_read_as_black(channels, tmp_path):
    pixels = np.arange(64 * channels, dtype=np.uint16).reshape(8, 8, channels)
    path = str(write_folder(tmp_path, {"a.png": _deep_png(pixels)}))
    with pytest.raises(UserError, match=r"'a.png' has 16 bits a channel but no value above \d+, which is black"):
        ImageArchive(path).images()


def test_all_broken_images_are_named_at_once_in_memory_and_not(tmp_path):
    files = {f"{i:02d}.png": encoded(image) for i, image in enumerate(pictures(20, 16, 16))}
    for name in ("03.png", "11.png", "17.png"):
        files[name] = files[name][:100]
    path = str(write_folder(tmp_path, files))
    for in_memory in (True, False):
        data = ImageArchive(path, in_memory=in_memory, batch_size=4)
        with pytest.raises(UserError, match=r"3 images cannot be used, .*'03.png' .*'11.png' .*'17.png' ") as told:
            data.setup("fit")
        assert "\n" not in str(told.value)
    data = ImageArchive(path, in_memory=False, subset=2, subset_seed=1)
    assert {"03.png", "11.png", "17.png"}.isdisjoint(sorted(files)[i] for i in subset_order(1, 20)[:2])
    data.setup("fit")  # only the chosen images count


def test_a_set_that_was_checked_is_not_checked_again_until_a_file_changes(tmp_path, monkeypatch):
    path = write_folder(tmp_path, {f"{i}.png": encoded(image) for i, image in enumerate(pictures(5, 16, 16))})
    decoded = []
    original = repro.data.archive.fit_pixels
    monkeypatch.setattr(repro.data.archive, "fit_pixels", lambda *all: decoded.append(1) or original(*all))
    for expected in (5, 0):
        decoded.clear()
        ImageArchive(str(path), in_memory=False).setup("fit")
        assert len(decoded) == expected
    (path / "3.png").write_bytes((path / "3.png").read_bytes()[:100])
    with pytest.raises(UserError, match=r"image '3.png' cannot be decoded"):
        ImageArchive(str(path), in_memory=False).setup("fit")


def test_several_sizes_name_two_and_the_way_out(tmp_path):
    files = {"a/0.png": encoded(pictures(1)[0]), "b/1.png": encoded(pictures(1, 9, 7)[0])}
    path = str(write_zip(tmp_path / "sizes.zip", files))
    with pytest.raises(UserError) as told:
        ImageArchive(path).prepare_data()
    assert str(told.value) == (
        f"{path} holds images of several sizes: 'a/0.png' is 6x6, 'b/1.png' is 7x9; "
        "--data.resize 6 would crop their centre squares and scale them"
    )
    data = ImageArchive(path, resize=6)
    array = pictures(1, 9, 7)[0][1:8]
    expected = fit_pixels(Image.fromarray(array), 3, 6)
    assert torch.equal(_in_name_order(data)[1], torch.from_numpy(expected))


def test_scaling_is_block_means_or_bicubic_downwards_and_linear_upwards():
    array = pictures(1, 8, 8, channels=1)[0]
    halved = fit_pixels(to_picture(array[None]), 1, 4)[0]
    means = array.reshape(4, 2, 4, 2).astype(float).mean((1, 3))
    assert np.array_equal(halved, np.floor(means + 0.5))
    fractional = fit_pixels(to_picture(array[None]), 1, 3)[0]
    exact = torch.from_numpy(array)[None, None].double()
    exact = torch.nn.functional.interpolate(exact, size=3, mode="bicubic", antialias=True)[0, 0]
    assert np.abs(fractional - exact.clamp(0, 255).numpy()).max() <= 1
    ramp = np.arange(8, dtype=np.uint8)[None].repeat(8, 0) * 16
    doubled = fit_pixels(to_picture(ramp[None]), 1, 16)[0]
    centres = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7) * 16
    assert np.abs(doubled - centres).max() <= 1


def test_a_set_is_the_same_bytes_from_an_array_and_from_files(tmp_path):
    digits = Digits(subset=20)
    files = {f"{i:02d}.png": encoded(image[0].numpy()) for i, image in enumerate(digits.images())}
    path = str(write_folder(tmp_path, files))
    for resize in (None, 4, 5, 12):
        expected = Digits(subset=20, resize=resize).images()
        assert torch.equal(_in_name_order(ImageArchive(path, resize=resize)), expected)


def test_grey_is_rec_601_luma(tmp_path):
    array = pictures(1)[0]
    data = ImageArchive(str(write_folder(tmp_path, {"a.png": encoded(array)})), grayscale=True)
    luma = array.astype(float) @ [0.299, 0.587, 0.114]
    assert data.image_shape == (1, 6, 6)
    assert np.abs(data.images()[0, 0].numpy() - luma).max() <= 0.51


@pytest.mark.parametrize("form", ["folder", "zip", "xz"])
def test_decoded_sets_are_kept_and_read_again(form, tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.archive, "CACHED_IMAGES", 10)
    files, _ = _tree()
    path = str(FORMS[form](tmp_path / "set", files))
    first = ImageArchive(path, subset=8)
    first.images()
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda *args, **kwargs: pytest.fail("an image was decoded again"))
        again = ImageArchive(path, subset=8)
        assert again.fingerprint() == first.fingerprint()
        assert (again.class_names, again.image_shape) == (first.class_names, first.image_shape)
    fresh = ImageArchive(path, subset=8, cache=False)
    assert fresh.fingerprint() == first.fingerprint()
    assert ImageArchive(path, resize=3).image_shape == (3, 3, 3)


def _entry(tmp_cache):
    (array,), (record,) = tmp_cache.glob("decoded/*.npy"), tmp_cache.glob("decoded/*.json")
    return array, record


@pytest.mark.parametrize("damage", ["flip", "truncate", "record", "missing", "swap"])
def test_a_damaged_cache_is_made_again(damage, tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.archive, "CACHED_IMAGES", 10)
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    files, _ = _tree()
    path = str(write_zip(tmp_path / "set.zip", files))
    expected = ImageArchive(path)
    expected.images()
    array, record = _entry(tmp_path / "cache")
    whole = array.read_bytes()
    if damage == "flip":
        array.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    elif damage == "truncate":
        array.write_bytes(whole[:-5])
    elif damage == "record":
        record.write_text("{")
    elif damage == "missing":
        array.unlink()
    else:
        np.save(array, np.zeros(3, dtype=np.int64))
    assert ImageArchive(path).fingerprint() == expected.fingerprint()
    assert array.read_bytes() == whole


def test_a_changed_archive_is_not_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.archive, "CACHED_IMAGES", 10)
    files, _ = _tree()
    folder = write_folder(tmp_path / "set", files)
    before = ImageArchive(str(folder)).fingerprint()
    write_folder(folder, {"ant/00.png": encoded(pictures(1, seed=9)[0])})
    after = ImageArchive(str(folder)).fingerprint()
    assert after == ImageArchive(str(folder), cache=False).fingerprint() != before


def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(repro.data.archive, "CACHED_IMAGES", 10)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "file"))
    files, _ = _tree()
    assert len(ImageArchive(str(write_zip(tmp_path / "set.zip", files))).images()) == 12
