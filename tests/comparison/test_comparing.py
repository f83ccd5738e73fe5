"""Comparisons: what is checked before anything is counted, names, training sets."""

import pytest
from noisy_images import random_images, systems

from repro.banks import Bank, BankWriter
from repro.comparison import compare
from repro.descriptors.pixels import Pixels
from repro.descriptors.small import SmallSSCD
from repro.errors import UserError
from repro.metrics.functional import generalization_score, nearest, reproducibility_score
from repro.metrics.functional.intervals import wilson_interval

N = 60


def test_generalization_and_nearest_equal_the_plain_functions(found, images, train):
    for memorization, each in zip(found.memorization, images, strict=True):
        assert memorization.rate == generalization_score(each, train, 0.8)
        similarity, index = nearest(Pixels().features(each), Pixels().features(train))
        assert memorization.index.tolist() == index.tolist()
        assert memorization.similarity.tolist() == similarity.tolist()
        assert memorization.interval() == wilson_interval(memorization.count, N)
    assert found.memorization[0].index[::3].tolist() == list(range(30, 50))
    assert 0 < found.memorization[0].rate < found.memorization[3].rate


def test_chance_levels_of_copies_are_counted_on_images_that_no_system_drew(found, train):
    """Every training image is searched among the others; images of the same pixels in disorder in all."""
    memorization = found.memorization[0]
    similarity = (Pixels().features(train).double() @ Pixels().features(train).double().T).fill_diagonal_(-1)
    copies = int((similarity.amax(1) > 0.8).sum())
    assert {kind: len(values) for kind, values in memorization.chance.items()} == {"unseen": 50, "noise": 50}
    assert memorization.chance_count("unseen") == 50 - copies
    assert memorization.chance_count("noise") == 50
    row = found.table("gl")[0]
    assert (row["unseen_rate"], row["noise_rate"]) == (1 - copies / 50, 1.0)
    assert "GL of noise" in str(found)


def test_noise_that_passes_for_copies_is_told():
    """Without their mean taken out, all bright images are alike, whatever is on them."""
    images = 200 + random_images(20, 3, 4, 4) // 5
    found = compare([Bank.from_images(images)] * 2, Pixels(center=False), images, 0.9, names=["a", "b"])
    row = found.table("gl")[0]
    assert [row[key] for key in ("unseen_count", "unseen_n", "noise_count", "noise_n")] == [0, 20, 0, 20]


def test_images_unlike_those_that_a_descriptor_was_made_for_carry_a_warning():
    banks = [Bank.from_images(random_images(4, 1, size, size)) for size in (16, 16)]
    found = compare(banks, "SmallSSCD", names=["a", "b"])
    (line,) = found.warnings
    assert line.startswith(
        "SmallSSCD(cifar) was made for 32 x 32 colour photographs; they are 16 x 16, grey, roughness"
    )
    assert f"warning: {line}" in str(found)
    assert line in found.record()["warnings"]
    assert not compare(banks, "Pixels", names=["a", "b"]).warnings


def test_one_noise_has_no_control():
    found = compare([Bank.from_images(each[:1]) for each in systems()], "Pixels")
    assert found.scores["RP"].control is None
    assert "control_rate" not in found.table()[0]
    assert "(chance)" not in str(found)
    assert "warning: there is no chance level" in str(found)


def test_own_training_sets(images, train):
    found = compare(
        [Bank.from_images(each) for each in images[:3]], "Pixels", [images[0], None, Bank.from_images(train)]
    )
    assert found.memorization[0].rate == 0
    assert found.memorization[1] is None
    assert found.memorization[2].train_size == 50
    assert [row["system"] for row in found.table("gl")] == ["bank (1)", "bank (3)"]


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
        (lambda p: compare([bank(), p / "none"]), "no bank, run or checkpoint at"),
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
