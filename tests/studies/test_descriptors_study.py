"""The study of descriptors: its table holds what is measured, and mistakes are one line."""

from __future__ import annotations

import csv

import numpy as np
import pytest
import timm
import torch
from onnx_files import UINT8, write_onnx
from PIL import Image

from repro.analysis.agreement import agreement
from repro.analysis.copy_detection import EDITS, describe_copies, detect_copies
from repro.cli.main import main
from repro.data.archive import ImageArchive
from repro.data.digits import Digits
from repro.descriptors import sscd
from repro.descriptors.pixels import Pixels
from repro.descriptors.sscd import SSCD
from repro.studies import descriptors
from repro.studies.descriptors import DIGITS_HELD_OUT


@pytest.fixture
def offline(monkeypatch):
    """timm has no weights, and the study is small."""
    create = timm.create_model

    def without_weights(name, pretrained=False, **more):
        if pretrained:
            raise OSError("no network")
        return create(name, **more)

    monkeypatch.setattr(timm, "create_model", without_weights)
    monkeypatch.setitem(descriptors._SIZES, "tiny", descriptors._Size(8, 40, "test_resnet"))


def test_the_table_is_what_is_measured(tmp_path, monkeypatch, capsys, offline):
    monkeypatch.chdir(tmp_path)
    words = ["--data", "Digits", "--data.subset", "50", "--descriptor", "Pixels", "--descriptor.center", "false"]
    assert main(["study", "descriptors", "--output", "out", *words]) == 0
    told = capsys.readouterr().out
    assert "timm:test_resnet is untrained here: cannot get the weights" in told
    rows = list(csv.DictReader((tmp_path / "out" / "digits.csv").open(newline="")))
    found = detect_copies(Pixels(), Digits(holdout=DIGITS_HELD_OUT).held_out()[0][:40], 8)
    ours = [row for row in rows if row["descriptor"] == "Pixels"]
    assert [row["edit"] for row in ours] == [*EDITS, "all"]
    for row, expected in zip(ours, found.rows(), strict=True):
        for key in ("micro_ap", "recall", "false_positive_rate", "strict_recall", "threshold"):
            assert float(row[key]) == pytest.approx(expected[key], abs=1e-12)
    assert (tmp_path / "out" / "given_digits.csv").is_file()
    names = {row["descriptor"] for row in rows}
    smalls = {"SmallSSCD(digits)", "SmallSSCD(cifar)"}
    assert names == smalls | {"Pixels", "timm:test_resnet (untrained)", "Pixels(center=False)"}
    assert all(float(row["images_per_second"]) > 0 for row in rows)
    assert not (tmp_path / "out" / "digits_agreement.csv").exists()
    assert (tmp_path / "out" / "digits.png").stat().st_size > 5000


def test_decisions_stand_beside_those_of_sscd_where_it_is(tmp_path, monkeypatch, capsys, offline):
    """SSCD's file is a network of one convolution: what is said of it is counted as for any judge."""
    pytest.importorskip("onnxruntime")
    weights = np.random.default_rng(0).normal(size=(12, 3, 4, 4)).astype(np.float32)
    path = write_onnx(tmp_path / "sscd.onnx", weights, dtype=UINT8, layout="NHWC")
    for module in (sscd, descriptors):
        monkeypatch.setattr(module, "packaged_file", lambda name: path if name == "disc_mixup_int8" else None)
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(descriptors._SIZES, "cpu", descriptors._Size(8, 40, "test_resnet"))
    images = torch.randint(0, 256, (40, 8, 8, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (tmp_path / "photos").mkdir()
    for number, image in enumerate(images.numpy()):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number:02}.png")
    words = ["--data", "ImageArchive", "--data.path", str(tmp_path / "photos"), "--output", str(tmp_path / "out")]
    assert main(["study", "descriptors", "--scale", "cpu", *words]) == 0
    rows = {row["descriptor"]: row for row in csv.DictReader((tmp_path / "out" / "imagearchive_agreement.csv").open())}
    assert set(rows) == {"Pixels", "SmallSSCD(digits)", "SmallSSCD(cifar)", "timm:test_resnet (untrained)"}
    photos = ImageArchive(str(tmp_path / "photos")).images()
    expected = agreement(*(describe_copies(each, photos, 8) for each in (SSCD(), Pixels())))
    assert int(rows["Pixels"]["agreed"]) == expected.agreed
    assert float(rows["Pixels"]["best"]) == expected.best
    assert {row["judge"] for row in rows.values()} == {"SSCD(disc_mixup int8, 320)"}
    assert "decisions beside SSCD(disc_mixup int8, 320) > 0.6 on 44 pairs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--descriptor", "SmallSSCE"], "did you mean 'SmallSSCD'"),
        (["--descriptor", "SmallSSCD", "--descriptor.weights", "digit"], "did you mean 'digits'"),
        (["--data", "ImageArchive", "--data.path", "none.tar"], "none.tar"),
        (["--dat", "Digits"], "--dat"),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["study", "descriptors", *words]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
