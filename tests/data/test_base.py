from __future__ import annotations

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
import torch
from bank_files import write_bank
from image_files import encoded, pictures, write_folder

import repro.data.stream
from repro import records, registry
from repro.data.digits import Digits
from repro.data.downloads import CIFAR10, MNIST
from repro.data.order import flips_at, subset_order
from repro.data.source import SubsetSource
from repro.errors import UserError
from repro.testing.data import check_data


def _write_cifar(folder, monkeypatch, name):
    """A CIFAR of 5 x 8 + 8 random images in torchvision's layout, with torchvision's own checksums turned to it."""
    import torchvision.datasets

    dataset = getattr(torchvision.datasets, name)
    classes = registry.load("data", name).classes
    key = "labels" if name == "CIFAR10" else "fine_labels"
    base, rng = folder / dataset.base_folder, np.random.default_rng(0)
    base.mkdir(parents=True)
    stored, sums = {}, {}
    for part in ("train_list", "test_list"):
        for file_name, _ in getattr(dataset, part):
            labels = rng.integers(0, classes, 8).tolist()
            stored[file_name] = {"data": rng.integers(0, 256, (8, 3072), dtype=np.uint8), key: labels}
    stored[dataset.meta["filename"]] = {dataset.meta["key"]: [f"class {i}" for i in range(classes)]}
    for file_name, entry in stored.items():
        (base / file_name).write_bytes(pickle.dumps(entry))
        sums[file_name] = hashlib.md5((base / file_name).read_bytes()).hexdigest()
    for part in ("train_list", "test_list"):
        monkeypatch.setattr(dataset, part, [[file, sums[file]] for file, _ in getattr(dataset, part)])
    monkeypatch.setattr(dataset, "meta", dataset.meta | {"md5": sums[dataset.meta["filename"]]})
    counts = {"train": 8 * len(dataset.train_list), "test": 8 * len(dataset.test_list)}
    monkeypatch.setattr(registry.load("data", name), "counts", counts)
    return stored


def _write_mnist(folder, monkeypatch):
    raw, rng = folder / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    stored = {}
    for part, count in (("train", 12), ("t10k", 8)):
        images, labels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), rng.integers(0, 10, count).astype("u1")
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, count, 28, 28) + images.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, count) + labels.tobytes())
        stored[part] = (images, labels)
    monkeypatch.setattr(MNIST, "counts", {"train": 12, "test": 8})
    return stored


def _build(name, tmp_path, monkeypatch, **common):
    if name.startswith("CIFAR"):
        _write_cifar(tmp_path, monkeypatch, name)
        return registry.build("data", name, root=str(tmp_path), download=False, **common)
    if name == "MNIST":
        _write_mnist(tmp_path, monkeypatch)
        return registry.build("data", name, root=str(tmp_path), download=False, **common)
    if name == "ImageArchive":
        files = {f"{'cat' if i % 3 else 'dog'}/{i}.png": encoded(image) for i, image in enumerate(pictures(15))}
        return registry.build("data", name, path=str(write_folder(tmp_path, files)), **common)
    if name == "ImageArray":
        arrays = {"images": pictures(15, 6, 9, channels=5), "labels": np.arange(15) % 3}
        np.savez(tmp_path / "set.npz", **arrays)
        return registry.build("data", name, path=str(tmp_path / "set.npz"), channels="last", **common)
    if name == "LowRankMixture":
        common.pop("resize", None)
        return registry.build("data", name, samples=60, **common)
    if name == "BankImages":
        write_bank(tmp_path / "bank", 23, shard_size=4)
        return registry.build("data", name, path=str(tmp_path / "bank"), **common)
    if name == "HeldOut":
        return registry.build("data", name, of=Digits(holdout=30), **common)
    return registry.build("data", name, **common)


@pytest.mark.parametrize("common", [{"batch_size": 6}, {"subset": 7, "resize": 5, "batch_size": 16, "seed": 3}])
@pytest.mark.parametrize("name", registry.names("data"))
def test_every_data_set_obeys_the_laws(name, common, tmp_path, monkeypatch):
    check_data(_build(name, tmp_path, monkeypatch, **common))


def _other_images_each_time(calls, source):
    calls.append(1)
    source.images = source.images + len(calls)


def _label_outside(calls, source):
    source.labels = source.labels + 1


def _announces_another_shape(calls, source):
    source.image_shape = (1, 8, 9)


@pytest.mark.parametrize(
    ("flaw", "law"),
    [
        (_other_images_each_time, "the same record gives other images"),
        (_label_outside, "a label is outside the classes"),
        (_announces_another_shape, "announced"),
    ],
)
def test_the_laws_notice_a_broken_source(flaw, law, monkeypatch):
    calls, original = [], Digits.open_source

    def flawed(self):
        source = original(self)
        flaw(calls, source)
        return source

    monkeypatch.setattr(Digits, "open_source", flawed)
    with pytest.raises(AssertionError, match=law):
        check_data(Digits())


def test_the_laws_notice_subsets_that_are_not_nested(monkeypatch):
    def spread(self):
        source, total = self._open(), self._known.images
        chosen = np.linspace(0, total - 1 - self.holdout, len(self)).astype(np.int64)
        return SubsetSource(source, chosen), SubsetSource(source, np.arange(total - self.holdout, total))

    monkeypatch.setattr(Digits, "_chosen", spread)
    with pytest.raises(AssertionError, match="subsets are not nested"):
        check_data(Digits())


@pytest.mark.parametrize(
    ("name", "broken", "law"),
    [
        ("items_at", lambda seed, size, first, count: np.arange(first, first + count) % size, "not that of the perm"),
        ("flips_at", lambda seed, first, count: np.random.rand(count) < 0.5, "in_memory|two ranks"),
    ],
)
def test_the_laws_notice_a_broken_order(name, broken, law, monkeypatch):
    monkeypatch.setattr(repro.data.stream, name, broken)
    with pytest.raises(AssertionError, match=law):
        check_data(Digits(subset=50))


def test_digits_are_scikit_learns_scaled_and_rounded():
    from sklearn.datasets import load_digits

    digits, data = load_digits(), Digits()
    stored = {
        np.rint(image * 15.9375).astype(np.uint8).tobytes(): label
        for image, label in zip(digits.images, digits.target, strict=True)
    }
    assert len(data) == 1797
    assert len(stored) > 1790
    assert all(
        stored[image.numpy().tobytes()] == int(label) for image, label in zip(data.images(), data.labels(), strict=True)
    )
    assert (int(data.images().min()), int(data.images().max())) == (0, 255)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_cifar_gives_the_stored_bytes_and_labels(name, tmp_path, monkeypatch):
    stored = _write_cifar(tmp_path, monkeypatch, name)
    everything = {}
    for file, entry in stored.items():
        for image, label in zip(entry.get("data", []), entry.get("labels", entry.get("fine_labels", [])), strict=True):
            everything[image.tobytes()] = (file, label)
    for split, test_files in (("train", False), ("test", True), ("all", None)):
        data = registry.build("data", name, root=str(tmp_path), split=split, download=False)
        found = [everything[image.numpy().tobytes()] for image in data.images()]
        assert [label for _, label in found] == data.labels().tolist()
        assert {file.startswith("test") for file, _ in found} == ({True, False} if split == "all" else {test_files})
        assert data.class_names[1] == "class 1"


def test_mnist_gives_the_stored_bytes_and_plain_class_names(tmp_path, monkeypatch):
    stored = _write_mnist(tmp_path, monkeypatch)
    data = MNIST(root=str(tmp_path), split="test", download=False)
    images, labels = stored["t10k"]
    by_bytes = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert [by_bytes[image.numpy().tobytes()] for image in data.images()] == data.labels().tolist()
    assert data.class_names == tuple("0123456789")


def test_a_changed_cifar_file_is_told_in_one_line(tmp_path, monkeypatch):
    _write_cifar(tmp_path, monkeypatch, "CIFAR10")
    batch = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    batch.write_bytes(batch.read_bytes()[:-1] + b"x")
    with pytest.raises(
        UserError, match=r"CIFAR10 is missing or corrupt in .*put cifar-10-python.tar.gz from https://"
    ) as told:
        CIFAR10(root=str(tmp_path), download=False).images()
    assert "\n" not in str(told.value)


def test_a_truncated_or_foreign_mnist_is_told_in_one_line(tmp_path, monkeypatch):
    _write_mnist(tmp_path, monkeypatch)
    monkeypatch.setattr(MNIST, "counts", {"train": 60_000, "test": 10_000})
    with pytest.raises(UserError, match="has 12 images instead of 60,000"):
        MNIST(root=str(tmp_path), download=False).images()
    images = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    images.write_bytes(images.read_bytes()[:100])
    with pytest.raises(UserError, match="MNIST is missing or corrupt"):
        MNIST(root=str(tmp_path), download=False).images()


@pytest.mark.parametrize(
    ("name", "file"), [("CIFAR100", "cifar-100-python.tar.gz"), ("MNIST", "train-images-idx3-ubyte.gz")]
)
def test_offline_says_what_to_put_where(name, file, tmp_path, monkeypatch):
    import urllib.error
    import urllib.request

    def offline(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    data = registry.build("data", name, root=str(tmp_path / "none"))
    assert data.num_classes == (100 if name == "CIFAR100" else 10)
    with pytest.raises(UserError, match=f"cannot be fetched .*not known.*put .*{file}.* into {tmp_path}") as told:
        data.prepare_data()
    assert "\n" not in str(told.value)


def test_files_put_by_hand_need_no_network(tmp_path, monkeypatch):
    stored = _write_mnist(tmp_path / "made", monkeypatch)
    import torchvision.datasets

    raw, resources = tmp_path / "MNIST" / "raw", []
    raw.mkdir(parents=True)
    for name, _ in torchvision.datasets.MNIST.resources:
        packed = gzip.compress((tmp_path / "made" / "MNIST" / "raw" / name.removesuffix(".gz")).read_bytes())
        (raw / name).write_bytes(packed)
        resources.append((name, hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    assert len(MNIST(root=str(tmp_path)).images()) == len(stored["train"][0])


def test_flips_mirror_exactly_the_positions_that_the_coin_names():
    plain, flipped = Digits(subset=20, batch_size=50), Digits(subset=20, batch_size=50, horizontal_flip=True)
    for first in (0, 50, 117):
        images, mirrored = plain.stream().batches[first][0], flipped.stream().batches[first][0]
        coin = torch.from_numpy(flips_at(0, first, 50))
        assert torch.equal(mirrored, torch.where(coin[:, None, None, None], images.flip(-1), images))
        assert 10 < int(coin.sum()) < 40


def test_workers_prepare_the_same_batches(tmp_path):
    files = {f"{i % 2}/{i:03d}.png": encoded(image) for i, image in enumerate(pictures(30))}
    path = str(write_folder(tmp_path, files))
    arguments = {"path": path, "subset": 25, "batch_size": 8, "horizontal_flip": True}
    expected = list(registry.build("data", "ImageArchive", **arguments).stream(9))
    for more in (
        {"in_memory": False},
        {"in_memory": False, "workers": 1},
        {"workers": 2},
        {"in_memory": False, "workers": 2},
    ):
        batches = list(registry.build("data", "ImageArchive", **arguments, **more).stream(9))
        assert len(batches) == 9
        for (images, labels), (other_images, other_labels) in zip(expected, batches, strict=True):
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)


def test_iterating_leaves_the_global_generators_alone():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    list(Digits(subset=20, batch_size=8).stream(3))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subset": 1798}, "subset is 1798 but Digits has 1797 images; give at most 1797"),
        (
            {"subset": 1790, "holdout": 8},
            "subset is 1790 but Digits has 1797 images of which 8 are held out; give at most 1789",
        ),
        ({"holdout": 1797}, "holdout is 1797 but Digits has 1797 images; leave some to train on"),
    ],
)
def test_asking_for_more_images_than_there_are(arguments, message):
    with pytest.raises(UserError) as told:
        Digits(**arguments).prepare_data()
    assert str(told.value) == message


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"subset": 0},
        {"subset": -4},
        {"seed": -1},
        {"seed": 2**63},
        {"resize": 0},
        {"holdout": -1},
        {"workers": -1},
    ],
)
def test_arguments_out_of_range_are_refused_at_construction(arguments):
    with pytest.raises(UserError, match=f"{next(iter(arguments))} is {next(iter(arguments.values()))}; give"):
        Digits(**arguments)


def test_an_unknown_split_names_the_legal_ones():
    with pytest.raises(UserError, match="unknown split 'trian'; did you mean 'train'"):
        CIFAR10(split="trian")


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(
        UserError,
        match="batch_size is 128, over all ranks, but there are 3 ranks; give a multiple of 3, for example 126",
    ):
        Digits().stream(rank=1, world_size=3)


def test_a_source_shared_out_of_memory_is_never_opened_twice(monkeypatch):
    opened = []
    original = Digits.open_source
    monkeypatch.setattr(Digits, "open_source", lambda self: opened.append(1) or original(self))
    data = Digits(subset=10, holdout=3, batch_size=4)
    data.prepare_data()
    data.setup()
    data.images(), data.labels(), data.held_out(), data.fingerprint(), data.class_names, list(data.train_dataloader())
    data.prepare_data()
    assert len(opened) == 1


@pytest.mark.parametrize("name", ["Digits", "CIFAR10", "MNIST", "ImageArchive", "LowRankMixture"])
def test_chosen_classes_are_those_images_in_their_order_with_new_numbers(name, tmp_path, monkeypatch):
    everything = _build(name, tmp_path, monkeypatch)
    stored, labels = everything.open_source(), everything.open_source().labels
    data = type(everything)(**records.record_of(everything)["args"] | {"classes": [1, 0]})
    rows = ((labels == 0) | (labels == 1)).nonzero().flatten()
    assert 0 < len(data) == len(rows)
    assert data.class_names == tuple(stored.class_names[number] for number in (1, 0))
    order = np.argsort(subset_order(data.subset_seed, len(rows)))
    assert torch.equal(data.images()[order], stored.read(rows.numpy()))
    assert torch.equal(data.labels()[order], 1 - labels[rows])


def test_chosen_classes_obey_the_laws_and_wrong_ones_are_told():
    check_data(Digits(classes=[7, 2, 9], batch_size=12, holdout=5))
    for classes, told in (([3, 10], "10 is not in the data: give 0 to 9"), ([], "different"), ([1, 1], "different")):
        with pytest.raises(UserError, match=told):
            Digits(classes=classes).images()


def test_classes_are_named_too_and_said_in_one_line(tmp_path):
    files = {
        f"{name}/{i}.png": encoded(image) for name in ("cat", "dog", "2", "10") for i, image in enumerate(pictures(3))
    }
    path = str(write_folder(tmp_path, files))
    whole = registry.build("data", "ImageArchive", path=path)
    assert whole.class_names == ("2", "10", "cat", "dog")
    assert whole.class_line() == "4 classes: 2, 10, cat, dog"
    for classes, names in (
        ("dog,cat", ("dog", "cat")),
        (["cat", 3], ("cat", "dog")),
        ("2", ("2",)),
        ([2], ("cat",)),
        ("0, 1", ("2", "10")),
    ):
        data = registry.build("data", "ImageArchive", path=path, classes=classes)
        assert data.class_names == names
        assert len(data) == 3 * len(names) == len(data.images())
        assert records.rebuild(records.record_of(data)).class_names == names
    for classes, message in (
        ("dog,cta", "unknown class 'cta'; did you mean 'cat'"),
        (["cat", 2], "names one class twice"),
        ("cat,cat", "give different names or numbers"),
        ([9], "class 9 is not in the data: give 0 to 3"),
    ):
        with pytest.raises(UserError, match=message):
            registry.build("data", "ImageArchive", path=path, classes=classes).images()
    with pytest.raises(UserError, match="class cat is not in the data: it has none"):
        registry.build("data", "ImageArchive", path=path, classes="cat", labelled=False).images()
