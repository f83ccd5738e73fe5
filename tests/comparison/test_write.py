"""What is written equals what was counted, under its conditions."""

import csv
import json

import matplotlib
import numpy as np
import pytest
from PIL import Image

from repro.descriptors.pixels import Pixels
from repro.metrics.functional.intervals import wilson_interval

N = 60


@pytest.fixture(scope="module")
def written(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written")
    return folder, found.write(folder)


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_files_hold_the_numbers(found, written):
    folder, paths = written
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    for name in ("RP", "MAE"):
        rows = read(folder / f"{name.lower()}.csv")
        values = [[float(row[system]) for system in found.names] for row in rows]
        assert values == found.scores[name].rates.tolist()
    pairs = read(folder / "pairs.csv")
    assert [(row["score"], row["first"], row["second"]) for row in pairs[:2]] == [("RP", "a", "b"), ("RP", "a", "c")]
    assert len(pairs) == 2 * 6
    for row in pairs:
        place = found.names.index(row["first"]), found.names.index(row["second"])
        score = found.scores[row["score"]]
        assert int(row["count"]) == score.counts[place]
        assert int(row["control_count"]) == score.control[place]
        assert (float(row["low"]), float(row["high"])) == wilson_interval(score.counts[place], N)
        assert (float(row["control_low"]), float(row["control_high"])) == wilson_interval(score.control[place], N)
        assert int(row["n"]) == N
    for row, memorization in zip(read(folder / "gl.csv"), found.memorization, strict=True):
        assert int(row["count"]) == memorization.count
        assert int(row["train_size"]) == 50
    with np.load(folder / "nearest.npz", allow_pickle=False) as arrays:
        assert arrays["names"].tolist() == found.names
        assert arrays["2_index"].tolist() == found.memorization[2].index.tolist()


def test_the_record_says_what_the_numbers_depend_on(found, written):
    record = json.loads((written[0] / "comparison.json").read_text())
    assert record == json.loads(json.dumps(found.record()))
    assert record["descriptor"]["fingerprint"] == Pixels().fingerprint
    assert record["descriptor"]["record"] == {"group": "descriptors", "name": "Pixels", "args": {"center": True}}
    assert (record["threshold"], record["mae_threshold"], record["control_seed"]) == (0.8, 15.0, 3)
    assert record["seeds"] == "100-159"
    assert [system["fingerprint"] for system in record["systems"]] == [each.fingerprint for each in found.banks]
    assert record["scores"]["RP"] == found.scores["RP"].counts.tolist()


@pytest.mark.parametrize("name", ["rp", "mae", "grid", "gl", "nearest"])
def test_figures_open(written, name):
    with Image.open(written[0] / f"{name}.png") as picture:
        picture.load()
        assert min(picture.size) > 200
        assert len(set(picture.convert("L").resize((64, 64)).tobytes())) > 20


def test_drawing_leaves_no_global_state(found, tmp_path):
    import sys

    before = dict(matplotlib.rcParams)
    found.write(tmp_path)
    assert dict(matplotlib.rcParams) == before
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_tensorboard(found, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found.to_tensorboard(tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("RP/a - c")[0].value == pytest.approx(found.scores["RP"].rates[0, 2])
    assert events.Scalars("GL/d")[0].value == pytest.approx(found.memorization[3].rate)
    assert "comparison/rp" in events.Tags()["images"]
