"""Features in a file: equal to those in memory, shared between processes, gone on with, never of other images."""

import multiprocessing

import numpy as np
import pytest
import torch

from repro.data.source import ArraySource
from repro.descriptors.mapped import describe_source, open_features
from repro.descriptors.pixels import Pixels
from repro.errors import UserError
from repro.metrics.functional import have_copies


def images(count=50):
    return torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def work(folder, rank):
    describe_source(ArraySource(images()), Pixels(), folder, rank, 3, block=7)


def test_several_processes_write_what_one_computes(tmp_path):
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=work, args=(tmp_path, rank)) for rank in range(3)]
    for process in running:
        process.start()
    for process in running:
        process.join(60)
    assert [process.exitcode for process in running] == [0, 0, 0]
    found, expected = open_features(tmp_path), Pixels().features(images())
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert torch.equal(torch.from_numpy(np.array(found)), expected)
    assert have_copies(expected[:5], found, 0.99).all()


def test_only_what_is_missing_is_described(tmp_path):
    source = ArraySource(images())
    assert describe_source(source, Pixels(), tmp_path, rank=1, world_size=2, block=10) == 2
    with pytest.raises(UserError, match="3 of 5 blocks of features are missing"):
        open_features(tmp_path)
    assert describe_source(source, Pixels(), tmp_path, block=10) == 3
    assert describe_source(source, Pixels(), tmp_path, block=10) == 0
    assert np.array_equal(open_features(tmp_path), Pixels().features(images()).numpy())


def test_a_block_that_was_not_finished_is_described_again(tmp_path, monkeypatch):
    class Stopped(ArraySource):
        def read(self, indices):
            if indices[0] >= 20:
                raise KeyboardInterrupt
            return super().read(indices)

    with pytest.raises(KeyboardInterrupt):
        describe_source(Stopped(images()), Pixels(), tmp_path, block=10)
    assert describe_source(ArraySource(images()), Pixels(), tmp_path, block=10) == 3


@pytest.mark.parametrize(
    ("source", "descriptor", "block", "key"),
    [
        (ArraySource(images(40)), Pixels(), 10, "rows"),
        (ArraySource(images()), Pixels(center=False), 10, "fingerprint"),
        (ArraySource(images()), Pixels(), 25, "block"),
    ],
)
def test_a_folder_of_other_features_is_refused(source, descriptor, block, key, tmp_path):
    describe_source(ArraySource(images()), Pixels(), tmp_path, block=10)
    before = np.array(open_features(tmp_path))
    with pytest.raises(UserError, match=f"holds features of 50 images by Pixels in blocks of 10; {key} differs"):
        describe_source(source, descriptor, tmp_path, block=block)
    assert np.array_equal(open_features(tmp_path), before)


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(UserError, match=r"no features in .*; write them with describe_source"):
        open_features(tmp_path)
