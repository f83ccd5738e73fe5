"""Banks: what is written is read, an interruption costs nothing, and a bank from elsewhere does no harm."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from repro.banks import Bank, BankWriter, Manifest, format_seeds
from repro.errors import UserError
from repro.files import writing
from repro.noise import parse_seeds

SHAPE = (3, 5, 4)
MODEL = {"group": "modules", "name": "Diffusion", "args": {"width": 8}}


def images_of(seeds, shape=SHAPE):
    return torch.stack(
        [torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(s)).to(torch.uint8) for s in seeds]
    )


def keys(seeds=range(10), **more):
    return {"seeds": list(seeds), "image_shape": SHAPE, "model": MODEL, "shard_size": 4} | more


def write_bank(path, **more):
    writer = BankWriter(path, keys(**more))
    for seeds in writer.missing():
        writer.write(seeds, images_of(seeds))
    return writer


@contextmanager
def file_size_limit(size):
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def test_round_trip(tmp_path):
    seeds = [5, 6, 7, 100, 3, 2]
    assert write_bank(tmp_path / "bank", seeds=seeds, sampler={"name": "Heun"}, source="runs/a.ckpt").complete
    bank = Bank.open(tmp_path / "bank")
    assert torch.equal(bank.images, images_of(seeds))
    assert bank.seeds.tolist() == seeds
    assert bank.labels is None
    assert bank.complete
    assert bank.manifest.model == MODEL
    assert bank.manifest.sampler == {"name": "Heun"}
    assert bank.manifest.source == "runs/a.ckpt"
    assert bank.name == "bank"
    assert bank.fingerprint == Bank.from_images(images_of(seeds), seeds).fingerprint
    assert sorted(os.listdir(tmp_path / "bank")) == ["images-00000000.npy", "images-00000001.npy", "manifest.json"]


def test_fingerprint_is_of_the_content():
    images = images_of(range(4))
    bank = Bank.from_images(images)
    touched = images.clone()
    touched[3, 2, 4, 3] ^= 1
    others = [
        Bank.from_images(touched),
        Bank.from_images(images, [0, 1, 2, 4]),
        Bank.from_images(images.view(4, 3, 4, 5)),
        Bank(images, Manifest(seeds=range(4), image_shape=SHAPE, labels={"num_classes": 1}), torch.zeros(4).long()),
    ]
    assert len({bank.fingerprint} | {other.fingerprint for other in others}) == 5
    assert Bank.from_images(images.clone(), task="other").fingerprint == bank.fingerprint


def test_an_interrupted_bank_goes_on_where_it_stopped(tmp_path):
    writer = BankWriter(tmp_path, keys())
    assert writer.missing() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    writer.write([4, 5, 6, 7], images_of([4, 5, 6, 7]))
    partial = Bank.open(tmp_path)
    assert not partial.complete
    assert partial.seeds.tolist() == [4, 5, 6, 7]
    assert torch.equal(partial.images, images_of([4, 5, 6, 7]))
    again = BankWriter(tmp_path, keys(shard_size=7, source="moved elsewhere"))
    assert again.missing() == [[0, 1, 2, 3], [8, 9]]
    for seeds in again.missing():
        again.write(seeds, images_of(seeds))
    assert again.complete
    assert torch.equal(Bank.open(tmp_path).images, images_of(range(10)))


def test_processes_share_the_shards_whatever_is_there(tmp_path):
    parts = [BankWriter(tmp_path, keys(range(30))) for _ in range(3)]
    first = parts[0].missing(0, 3)
    parts[0].write(first[0], images_of(first[0]))
    shares = [first, parts[1].missing(1, 3), parts[2].missing(2, 3)]
    assert sorted(seed for share in shares for shard in share for seed in shard) == list(range(30))
    assert parts[2].missing(0, 3) == first[1:]


def test_labels(tmp_path):
    labels = {"num_classes": 3, "images_per_seed": 2}
    writer = BankWriter(tmp_path, keys([7, 8, 9], shard_size=2, labels=labels))
    images = images_of(range(6))
    writer.write([7, 8], images[:4], torch.tensor([0, 2, 1, 0]))
    writer.write([9], images[4:], torch.tensor([2, 2]))
    bank = Bank.open(tmp_path)
    assert bank.seeds.tolist() == [7, 7, 8, 8, 9, 9]
    assert bank.labels.tolist() == [0, 2, 1, 0, 2, 2]
    chosen = bank.select([9, 7])
    assert chosen.seeds.tolist() == [9, 9, 7, 7]
    assert chosen.labels.tolist() == [2, 2, 0, 2]
    assert torch.equal(chosen.images, images[[4, 5, 0, 1]])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_fingerprint": "abc"}, ["model_fingerprint", '"abc"']),
        ({"seeds": range(12)}, ["seeds", '"0-9"', '"0-11"']),
        ({"sampler": {"name": "Euler"}, "task": "inpaint"}, ["sampler", "Euler", "task", "inpaint"]),
        ({"image_shape": (1, 5, 4)}, ["image_shape", "[3, 5, 4]", "[1, 5, 4]"]),
    ],
)
def test_another_bank_at_the_path_is_refused_by_its_differing_keys(tmp_path, change, words):
    write_bank(tmp_path)
    with pytest.raises(UserError) as caught:
        BankWriter(tmp_path, keys(**change))
    assert all(word in str(caught.value) for word in words)
    assert "kernel" not in str(caught.value)
    assert Bank.open(tmp_path).complete


def test_a_full_disk_leaves_nothing_half_written(tmp_path):
    writer = BankWriter(tmp_path, {"seeds": range(8), "image_shape": (3, 64, 64), "shard_size": 4})
    writer.write([0, 1, 2, 3], images_of([0, 1, 2, 3], (3, 64, 64)))
    before = sorted(os.listdir(tmp_path))
    with file_size_limit(20_000), pytest.raises(UserError, match=r"cannot write .*images-00000001.npy: File too large"):
        writer.write([4, 5, 6, 7], images_of([4, 5, 6, 7], (3, 64, 64)))
    assert sorted(os.listdir(tmp_path)) == before
    writer.write([4, 5, 6, 7], images_of([4, 5, 6, 7], (3, 64, 64)))
    assert torch.equal(Bank.open(tmp_path).images, images_of(range(8), (3, 64, 64)))


def test_no_space_at_the_last_moment(tmp_path, monkeypatch):
    writer = BankWriter(tmp_path, keys())

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing.os, "fsync", full)
    with pytest.raises(UserError, match="No space left on device"):
        writer.write([0, 1, 2, 3], images_of([0, 1, 2, 3]))
    assert os.listdir(tmp_path) == ["manifest.json"]


KILLED = """
import sys, torch
from repro.banks import BankWriter
writer = BankWriter(sys.argv[1], {"seeds": range(4000), "image_shape": (3, 64, 64), "shard_size": 50})
print("ready", flush=True)
for seeds in writer.missing():
    writer.write(seeds, torch.full((len(seeds), 3, 64, 64), seeds[0] // 50, dtype=torch.uint8))
"""


def test_a_killed_process_leaves_whole_shards_only(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE, env=environment)
    process.stdout.readline()
    while "images-" not in (tmp_path / "manifest.json").read_text():
        time.sleep(0.001)
    time.sleep(0.02)
    process.kill()
    process.wait()
    process.stdout.close()
    bank = Bank.open(tmp_path)
    assert 0 < len(bank) < 4000
    assert torch.equal(bank.images.flatten(1).amin(1).long(), bank.seeds // 50)
    assert torch.equal(bank.images.flatten(1).amax(1).long(), bank.seeds // 50)
    writer = BankWriter(tmp_path, {"seeds": range(4000), "image_shape": (3, 64, 64)})
    assert len(bank) + 50 * len(writer.missing()) == 4000


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (([0, 1, 2], images_of(range(3))), "missing()"),
        (([1, 2, 3, 4], images_of(range(4))), "missing()"),
        (([0, 1, 2, 3], images_of(range(3))), "(4, 3, 5, 4)"),
        (([0, 1, 2, 3], images_of(range(4)).float()), "to_uint8"),
        (([0, 1, 2, 3], images_of(range(4)), torch.zeros(4)), "labels"),
        (([], images_of(range(1))), "missing()"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, arguments, word):
    with pytest.raises(UserError) as caught:
        BankWriter(tmp_path, keys()).write(*arguments)
    assert word in str(caught.value)
    assert os.listdir(tmp_path) == ["manifest.json"]


def save_array(array):
    def harm(path):
        np.save(path / "images-00000001.npy", array)

    return harm


def save_pickle(path):
    np.save(path / "images-00000001.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)


def truncate(path):
    file = path / "images-00000001.npy"
    file.write_bytes(file.read_bytes()[:-1])


def save_archive(path):
    with open(path / "images-00000001.npy", "wb") as file:
        np.savez(file, images=np.zeros((4, *SHAPE), dtype=np.uint8))


def claim_huge(path):
    header = np.zeros(0, dtype=np.uint8)
    with open(path / "images-00000001.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(
            file, np.lib.format.header_data_from_array_1_0(header) | {"shape": (1 << 50, *SHAPE)}
        )


def edit(**changes):
    def harm(path):
        record = json.loads((path / "manifest.json").read_text())
        del record["checksum"]
        (path / "manifest.json").write_text(json.dumps(record | changes))

    return harm


def replace_manifest(text):
    return lambda path: (path / "manifest.json").write_text(text)


@pytest.mark.parametrize(
    ("harm", "word"),
    [
        (truncate, "images-00000001.npy"),
        (save_pickle, "images-00000001.npy"),
        (save_archive, "an archive"),
        (claim_huge, "images-00000001.npy"),
        (save_array(np.zeros((3, *SHAPE), dtype=np.uint8)), "(4, 3, 5, 4)"),
        (save_array(np.zeros((4, *SHAPE), dtype=np.float32)), "float32"),
        (save_array(np.asfortranarray(np.zeros((4, *SHAPE), dtype=np.uint8))), "images-00000001.npy"),
        (edit(format=99), "format 99"),
        (edit(sedes="0-9"), "did you mean 'seeds'"),
        (edit(seeds="0-99999999999999"), "too many"),
        (edit(seeds="9-0"), "empty"),
        (edit(seeds=[1, 2]), "text such as 0-9999"),
        (edit(seeds="0-3,2"), "twice"),
        (edit(seeds="0-9;rm"), "cannot read seeds"),
        (edit(image_shape=[3, -5, 4]), "image_shape"),
        (edit(image_shape="abc"), "image_shape"),
        (edit(image_shape=[3, 5]), "(C, H, W)"),
        (edit(shard_size=0), "shard_size"),
        (edit(shard_size="x"), "shard_size"),
        (edit(model="text"), "model"),
        (edit(labels={"num_classes": -1}), "num_classes"),
        (edit(labels={"num_classes": 10}), "labels-00000000.npy"),
        (replace_manifest("{"), "not valid JSON"),
        (replace_manifest("[1]"), "not the manifest"),
        (replace_manifest('{"format": 1}'), "seeds is missing"),
        (replace_manifest("[" * 100_000), "nested more than 60 deep"),
        (lambda path: (path / "manifest.json").write_bytes(b"\xff\xfe\x00"), "no text file"),
        (lambda path: (path / "manifest.json").unlink(), "no sample bank"),
    ],
)
def test_a_bank_from_elsewhere_is_checked(tmp_path, harm, word):
    write_bank(tmp_path)
    harm(tmp_path)
    with pytest.raises(UserError) as caught:
        Bank.open(tmp_path)
    assert word in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_labels_outside_the_classes(tmp_path):
    writer = BankWriter(tmp_path, keys(range(2), labels={"num_classes": 3}))
    writer.write([0, 1], images_of([0, 1]), torch.tensor([0, 2]))
    np.save(tmp_path / "labels-00000000.npy", np.array([0, 3]))
    edit(checksums=None)(tmp_path)
    with pytest.raises(UserError, match="labels run from 0 to 3"):
        Bank.open(tmp_path)


def test_no_path_of_a_manifest_is_followed(tmp_path):
    write_bank(tmp_path / "bank", source="/etc/passwd", extra={"images": "../../other.npy"})
    assert torch.equal(Bank.open(tmp_path / "bank").images, images_of(range(10)))


def test_seeds_as_text_come_back():
    for seeds in ([0], [0, 1, 2], [5, 4, 3], [9, 1, 2, 3, 7], [*range(1000), 5000]):
        assert parse_seeds(format_seeds(seeds)) == seeds
    assert format_seeds(range(10_000)) == "0-9999"


def test_manifest_goes_through_json():
    manifest = Manifest(**keys([3, 4, 9], labels={"num_classes": 10}, extra={"mask": [1, 2]}, data={"name": "Digits"}))
    assert Manifest.from_record(json.loads(json.dumps(manifest.record()))) == manifest
    assert manifest.differences(Manifest(**keys([3, 4, 9], labels={"num_classes": 10}, extra={"mask": [1, 2]}))) == [
        'data is "Digits" there and null here'
    ]
    with pytest.raises(UserError, match="plain JSON"):
        Manifest(**keys(extra={"x": object()})).record()


def test_a_missing_seed_is_named():
    with pytest.raises(UserError, match="no seed 12; it holds 3-7"):
        Bank.from_images(images_of(range(5)), range(3, 8)).select([4, 12])


def _flip_a_bit(file, at):
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def test_one_changed_bit_of_the_images_is_refused(tmp_path):
    write_bank(tmp_path)
    _flip_a_bit(tmp_path / "images-00000001.npy", -7)
    bank = Bank.open(tmp_path)
    assert torch.equal(bank.read([0, 3]), images_of([0, 3]))
    for read in (lambda: bank.images, lambda: bank.read([5]), lambda: bank.fingerprint, lambda: bank.select([0])):
        with pytest.raises(UserError, match=r"images-00000001.npy was changed after it was written"):
            read()


def test_one_changed_bit_of_the_labels_is_refused(tmp_path):
    writer = BankWriter(tmp_path, keys(range(2), labels={"num_classes": 3}))
    writer.write([0, 1], images_of([0, 1]), torch.tensor([0, 2]))
    _flip_a_bit(tmp_path / "labels-00000000.npy", -16)
    with pytest.raises(UserError, match=r"labels-00000000.npy was changed after it was written"):
        Bank.open(tmp_path)


@pytest.mark.parametrize(("old", "new"), [('"guidance": 1.0', '"guidance": 1.5'), ('"width": 8', '"width": 9')])
def test_a_changed_number_of_the_manifest_is_refused_unless_the_checksum_is_taken_away(tmp_path, old, new):
    write_bank(tmp_path)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_text()
    assert old in text
    manifest.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=r"manifest.json was changed after it was written; .* remove the line"):
        Bank.open(tmp_path)
    record = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({key: value for key, value in record.items() if key != "checksum"}))
    assert torch.equal(Bank.open(tmp_path).images, images_of(range(10)))


def _as_the_old_version_wrote(path):
    record = json.loads((path / "manifest.json").read_text())
    kept = {key: value for key, value in record.items() if key not in ("checksum", "checksums")}
    (path / "manifest.json").write_text(json.dumps(kept))


def test_a_bank_without_checksums_is_read_and_continued_and_says_so_once(tmp_path, caplog):
    writer = BankWriter(tmp_path, keys())
    writer.write([0, 1, 2, 3], images_of(range(4)))
    _as_the_old_version_wrote(tmp_path)
    again = BankWriter(tmp_path, keys())
    assert again.missing() == [[4, 5, 6, 7], [8, 9]]
    for seeds in again.missing():
        again.write(seeds, images_of(seeds))
    assert again.complete
    assert torch.equal(Bank.open(tmp_path).images, images_of(range(10)))
    assert torch.equal(Bank.open(tmp_path).images, images_of(range(10)))
    assert [record.message for record in caplog.records if "has no checksums" in record.message] == [
        f"bank {tmp_path} has no checksums: it was written by an older version, so changed bytes go unseen"
    ]


def test_a_shard_that_is_not_yet_in_the_manifest_is_drawn_again(tmp_path, monkeypatch):
    writer = BankWriter(tmp_path, keys())
    writer.write([0, 1, 2, 3], images_of(range(4)))
    before = (tmp_path / "manifest.json").read_bytes()
    writer.write([4, 5, 6, 7], images_of(range(4, 8)))
    (tmp_path / "manifest.json").write_bytes(before)  # killed between the shard and the manifest
    assert Bank.open(tmp_path).seeds.tolist() == [0, 1, 2, 3]
    assert BankWriter(tmp_path, keys()).missing() == [[4, 5, 6, 7], [8, 9]]


def test_writers_of_one_bank_take_turns_with_the_manifest(tmp_path):
    code = (
        "import sys, torch; from repro.banks import BankWriter; rank = int(sys.argv[2])\n"
        "writer = BankWriter(sys.argv[1], {'seeds': range(120), 'image_shape': (1, 2, 2), 'shard_size': 2})\n"
        "for seeds in writer.missing(rank, 3): writer.write(seeds, torch.full((2, 1, 2, 2), rank, dtype=torch.uint8))"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, tmp_path, str(rank)]) for rank in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    bank = Bank.open(tmp_path)
    assert bank.complete
    assert torch.equal(bank.images[:, 0, 0, 0].long(), torch.arange(120) // 2 % 3)


def test_parts_of_killed_writers_are_swept_and_those_of_living_ones_stay(tmp_path):
    (tmp_path / ".images-00000000.npy.0123456789ab.part").write_bytes(b"half")
    with writing.write_whole(tmp_path / "other.npy") as living:
        write_bank(tmp_path)
        assert [path.name for path in tmp_path.glob(".*.part")] == [os.path.basename(living.name)]
        living.write(b"whole")
    assert (tmp_path / "other.npy").read_bytes() == b"whole"
    assert not list(tmp_path.glob(".*"))


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path):
    (tmp_path / "config.yaml").write_text("model: {}")
    (tmp_path / ".part-run").write_text("somebody's")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"is not empty and holds no bank \(config.yaml\); name a new or empty folder"):
        BankWriter(tmp_path, keys())
    assert sorted(tmp_path.rglob("*")) == before
