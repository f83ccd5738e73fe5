"""Comparisons: every number equals that of the plain functions, and what is written equals what was found."""

import csv
import json

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from repro.banks import Bank, BankWriter
from repro.comparison import compare, counting, derangement
from repro.descriptors.pixels import Pixels
from repro.descriptors.small import SmallSSCD
from repro.errors import UserError
from repro.metrics import PairMetric, ReproducibilityScore
from repro.metrics.functional import generalization_score, mae_score, nearest, reproducibility_score
from repro.metrics.functional.intervals import wilson_interval

N = 60


def random_images(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def systems(count=4, n=N, shape=(3, 6, 6)):
    """Images of common origin with noise that grows from system to system and from row to row."""
    base = random_images(n, *shape).float()
    generator = torch.Generator().manual_seed(1)
    strength = torch.linspace(0, 60, n).view(-1, 1, 1, 1)
    noisy = [base + (0.2 + k) * strength * torch.randn(base.shape, generator=generator) for k in range(count)]
    return [images.clamp(0, 255).to(torch.uint8) for images in noisy]


@pytest.fixture(scope="module")
def images():
    return systems()


@pytest.fixture(scope="module")
def train(images):
    return torch.cat([random_images(30, 3, 6, 6, seed=9), images[0][::3]])


@pytest.fixture(scope="module")
def found(images, train):
    banks = [Bank.from_images(each, range(100, 100 + N)) for each in images]
    return compare(banks, "Pixels", train, names=["a", "b", "c", "d"], control_seed=3)


def test_every_pair_equals_the_plain_functions(found, images):
    shuffle = derangement(N, 3)
    for i in range(4):
        for j in range(4):
            first, second = sorted((i, j))
            x, y = images[first], images[second]
            assert found.scores["RP"].rates[i, j] == reproducibility_score(x, y, 0.8)
            assert found.scores["MAE"].rates[i, j] == mae_score(x, y)
            assert found.scores["RP"].control_rates[i, j] == reproducibility_score(x, y[shuffle], 0.8)
            assert found.scores["MAE"].control_rates[i, j] == mae_score(x, y[shuffle])
    assert len(set(found.scores["RP"].counts.flatten().tolist())) > 4
    assert len(set(found.scores["MAE"].counts.flatten().tolist())) > 4
    assert found.scores["RP"].counts.dtype == np.int64
    assert (np.diag(found.scores["RP"].counts) == N).all()


def test_generalization_and_nearest_equal_the_plain_functions(found, images, train):
    for memorization, each in zip(found.memorization, images, strict=True):
        assert memorization.rate == generalization_score(each, train, 0.8)
        similarity, index = nearest(Pixels().features(each), Pixels().features(train))
        assert memorization.index.tolist() == index.tolist()
        assert memorization.similarity.tolist() == similarity.tolist()
        assert memorization.interval() == wilson_interval(memorization.count, N)
    assert found.memorization[0].index[::3].tolist() == list(range(30, 50))
    assert 0 < found.memorization[0].rate < found.memorization[3].rate


@pytest.mark.parametrize("elements", [1, 500, 1 << 22])
def test_counts_do_not_depend_on_the_chunks(found, images, monkeypatch, elements):
    monkeypatch.setattr(counting, "_ELEMENTS", elements)
    again = compare([Bank.from_images(each) for each in images], Pixels(), control_seed=3)
    for name, score in found.scores.items():
        assert (again.scores[name].counts == score.counts).all()
        assert (again.scores[name].control == score.control).all()


def test_the_control_is_at_chance_and_fixed(found, images):
    assert (np.triu(found.scores["RP"].control, 1) <= 3).all()
    banks = [Bank.from_images(each) for each in images]
    assert (compare(banks, "Pixels", control_seed=3).scores["RP"].control == found.scores["RP"].control).all()


@pytest.mark.parametrize("n", [2, 3, 1000])
def test_a_derangement_moves_every_place(n):
    for seed in range(5):
        shuffled = derangement(n, seed)
        assert sorted(shuffled.tolist()) == list(range(n))
        assert (shuffled != torch.arange(n)).all()
    assert n < 10 or not torch.equal(derangement(n, 0), derangement(n, 1))


def test_one_noise_has_no_control():
    found = compare([Bank.from_images(each[:1]) for each in systems()], "Pixels")
    assert found.scores["RP"].control is None
    assert "control_rate" not in found.table()[0]
    assert "chance" not in str(found)


def test_own_training_sets(images, train):
    found = compare(
        [Bank.from_images(each) for each in images[:3]], "Pixels", [images[0], None, Bank.from_images(train)]
    )
    assert found.memorization[0].rate == 0
    assert found.memorization[1] is None
    assert found.memorization[2].train_size == 50
    assert [row["system"] for row in found.memorization_table()] == ["bank (1)", "bank (3)"]


class Identical(PairMetric):
    inputs = "images"

    def match(self, a, b):
        return (a == b).flatten(1).all(1)


def test_further_metrics(images):
    half = images[0].clone()
    half[N // 2 :] = 255 - half[N // 2 :]
    metrics = [Identical(), ReproducibilityScore(0.8)]
    found = compare([Bank.from_images(images[0]), Bank.from_images(half)], "Pixels", metrics=metrics)
    assert found.scores["Identical"].counts.tolist() == [[N, N // 2], [N // 2, N]]
    assert (found.scores["ReproducibilityScore"].counts == found.scores["RP"].counts).all()
    assert (found.scores["ReproducibilityScore"].control == found.scores["RP"].control).all()
    named = compare([Bank.from_images(images[0])] * 2, "Pixels", metrics=["MAEScore"])
    assert (named.scores["MAEScore"].counts == named.scores["MAE"].counts).all()


def write_bank(path, images, seeds):
    writer = BankWriter(path, {"seeds": seeds, "image_shape": images.shape[1:], "shard_size": 25})
    for chunk in writer.missing():
        writer.write(chunk, images[[list(seeds).index(seed) for seed in chunk]])
    return path


def test_banks_on_the_disk_and_common_seeds(tmp_path, images):
    first = write_bank(tmp_path / "one", images[0], range(N))
    second = write_bank(tmp_path / "two", images[1][20:], range(20, N))
    with pytest.raises(UserError, match="holds seeds 20-59, 'one' 0-59; compare those in common with --seeds 20-59"):
        compare([first, second], "Pixels")
    found = compare([first, second], "Pixels", seeds="20-59")
    assert found.names == ["one", "two"]
    assert found.n == 40
    assert found.scores["RP"].rates[0, 1] == reproducibility_score(images[0][20:], images[1][20:], 0.8)


def test_names_of_equal_folders(tmp_path, images):
    paths = [write_bank(tmp_path / run / "bank", images[0], range(N)) for run in ("edm", "ddpm")]
    assert compare(paths, "Pixels").names == ["edm/bank", "ddpm/bank"]


def bank(n=4, shape=(1, 4, 4), seeds=None, **more):
    return Bank.from_images(random_images(n, *shape), seeds, **more)


def incomplete(path):
    writer = BankWriter(path, {"seeds": range(4), "image_shape": (1, 4, 4), "shard_size": 2})
    writer.write([0, 1], random_images(2, 1, 4, 4))
    return path


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda p: compare([bank()]), "at least two"),
        (lambda p: compare([bank(), bank(shape=(1, 5, 4))]), "(1, 5, 4)"),
        (lambda p: compare([bank(), bank(seeds=range(7, 11))]), "holds seeds 7-10"),
        (lambda p: compare([bank(), bank(seeds=[1, 0, 2, 3])]), "1,0,2-3"),
        (lambda p: compare([bank(), incomplete(p)]), "2 of 4"),
        (lambda p: compare([bank(), p / "none"]), "no sample bank"),
        (lambda p: compare([bank(), bank()], "Pixls"), "did you mean 'Pixels'"),
        (lambda p: compare([bank(), bank()], "Pixels", threshold=2), "[-1, 1]"),
        (lambda p: compare([bank(), bank()], "Pixels", mae_threshold=-1), "[0, 255]"),
        (lambda p: compare([bank(), bank()], "Pixels", names=["a"]), "1 different names"),
        (lambda p: compare([bank(), bank()], "Pixels", names=["a", "a"]), "1 different names"),
        (lambda p: compare([bank(), bank()], "Pixels", random_images(3, 3, 4, 4)), "(3, 4, 4)"),
        (lambda p: compare([bank(), bank()], "Pixels", random_images(3, 1, 4, 4).float()), "to_uint8"),
        (lambda p: compare([bank(), bank()], "Pixels", [None]), "1 training sets"),
        (lambda p: compare([bank(), bank()], "Pixels", seeds="3-5"), "no seed 4"),
        (lambda p: compare([bank(), bank()], "Pixels", metrics=["GeneralizationScore"]), "PairMetric"),
        (lambda p: compare([bank(), bank()], "Pixels", metrics=["MAEScor"]), "did you mean 'MAEScore'"),
    ],
)
def test_bad_input_is_one_line(call, word, tmp_path):
    with pytest.raises(UserError) as caught:
        call(tmp_path)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_descriptor_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    found = compare([bank(), bank()])
    name, threshold = found.descriptor["name"], found.threshold
    assert name == "SmallSSCD(digits)"
    assert threshold == SmallSSCD("digits").default_threshold
    assert f"{name} > {threshold:g}" in str(found)


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


def test_the_printed_tables_hold_every_rate(found):
    text = str(found)
    for row in found.table():
        assert f"{row['rate']:.3f}" in text
        assert f"{row['low']:.3f}-{row['high']:.3f}" in text
        assert f"{row['control_low']:.3f}-{row['control_high']:.3f}" in text
    for row in found.memorization_table():
        assert f"{row['count']} of {N}" in text


def test_tensorboard(found, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found.to_tensorboard(tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Scalars("RP/a - c")[0].value == pytest.approx(found.scores["RP"].rates[0, 2])
    assert events.Scalars("GL/d")[0].value == pytest.approx(found.memorization[3].rate)
    assert "comparison/rp" in events.Tags()["images"]
