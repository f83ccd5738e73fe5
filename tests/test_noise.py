"""Numbered noise: the same bits for every batch, process and reader; seeds as text; pixel conventions."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch

from repro.errors import UserError
from repro.images import to_float, to_uint8
from repro.noise import NoiseStream, draw_noise, parse_seeds

SHAPE = (3, 5, 7)


def test_definition():
    seeds = [0, 7, 4711, 2**31, 2**32 - 1]
    noise = draw_noise(seeds, SHAPE)
    for row, seed in zip(noise, seeds, strict=True):
        assert torch.equal(row, torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed)))
    assert noise.dtype == torch.float32


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 2), (1, 8, 8), (3, 32, 32), (5,)])
def test_definition_for_any_shape(shape):
    """Small and large tensors take different paths in torch's generator."""
    right = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(20)])
    assert torch.equal(draw_noise(range(20), shape), right)


@pytest.mark.parametrize("size", [1, 7, 64])
def test_same_bits_in_any_batch(size):
    whole = draw_noise(range(100), SHAPE)
    parts = [draw_noise(range(i, min(i + size, 100)), SHAPE) for i in range(0, 100, size)]
    assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draw_noise(order.tolist(), SHAPE), whole[order])


@pytest.mark.parametrize("size", [1, 7, 64])
def test_later_draws_belong_to_the_seed_too(size):
    def walk(seeds):
        stream = NoiseStream(seeds)
        return torch.stack([stream.draw(SHAPE) for _ in range(4)], 1)

    parts = [walk(range(i, min(i + size, 70))) for i in range(0, 70, size)]
    whole = walk(range(70))
    assert torch.equal(torch.cat(parts), whole)
    assert torch.equal(whole[:, 0], draw_noise(range(70), SHAPE))
    generator = torch.Generator().manual_seed(33)
    for draw in whole[33]:
        assert torch.equal(draw, torch.randn(SHAPE, generator=generator))


def test_same_bits_in_two_processes():
    """Two real processes, one with each half of the seeds and other batch sizes and thread counts."""
    code = (
        "import sys, torch; from repro.noise import NoiseStream; "
        "first, last, size, threads = map(int, sys.argv[1:]); torch.set_num_threads(threads); "
        "torch.manual_seed(first); torch.randn(3)\n"
        "for i in range(first, last, size):\n"
        "    stream = NoiseStream(range(i, min(i + size, last)))\n"
        "    for row in torch.stack([stream.draw((3, 5, 7)), stream.draw((3, 5, 7))], 1):\n"
        "        sys.stdout.buffer.write(row.numpy().tobytes())\n"
    )
    runs = [(0, 31, 7, 1), (31, 64, 64, 2)]
    workers = [subprocess.Popen([sys.executable, "-c", code, *map(str, run)], stdout=subprocess.PIPE) for run in runs]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    stream = NoiseStream(range(64))
    here = torch.stack([stream.draw(SHAPE), stream.draw(SHAPE)], 1).numpy().tobytes()
    assert len(b"".join(outputs)) == len(here)
    assert hashlib.sha256(b"".join(outputs)).digest() == hashlib.sha256(here).digest()


def test_leaves_the_default_generator_alone():
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    draw_noise(range(5), SHAPE)
    assert torch.equal(torch.randn(4), expected)


def test_is_unit_normal_and_independent():
    noise = draw_noise(range(400), (1, 16, 16)).flatten(1).double()
    n = noise.numel()
    assert abs(noise.mean().item()) < 4 / n**0.5
    assert abs(noise.var().item() - 1) < 4 * (2 / n) ** 0.5
    between = np.corrcoef(noise.numpy())[np.triu_indices(400, 1)]
    assert abs(between.mean()) < 4 / (16 * 400)
    assert abs(between.std() * 16 - 1) < 0.05


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0-3", [0, 1, 2, 3]),
        ("5", [5]),
        (5, [5]),
        (" 0-2 , 8 , 10-11 ", [0, 1, 2, 8, 10, 11]),
        ("7-7", [7]),
        ([4, 2], [4, 2]),
        (range(3), [0, 1, 2]),
        (np.array([3, 4]), [3, 4]),
        (torch.tensor([3, 4]), [3, 4]),
        ("4294967295", [2**32 - 1]),
    ],
)
def test_seeds_as_text(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read seeds ''"),
        ("a-b", "cannot read seeds 'a-b'; write a range or a list"),
        ("1-", "cannot read seeds"),
        ("-5", "cannot read seeds '-5'"),
        (-5, "cannot read seeds '-5'"),
        ("1..5", "cannot read seeds"),
        ("0-3,,5", "cannot read seeds"),
        ("1.5", "cannot read seeds"),
        ("5-3", "seed range '5-3' is empty"),
        ("0-3,2", "name a seed twice"),
        ([], "no seeds given"),
        ([1, -2], "seed -2 is negative"),
        ([1, 1], "name a seed twice"),
        ([1.5], "seed 1.5 is not an integer"),
        (["a"], "seed 'a' is not an integer"),
        ("4294967296", "seed 4294967296 is too large"),
        ("0-99999999999", "seed 99999999999 is too large"),
        ([2**40], "is too large"),
    ],
)
def test_seed_mistakes(text, message):
    with pytest.raises(UserError) as caught:
        parse_seeds(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seeds", [[], [-1], [0.5], [2**32]])
def test_stream_mistakes(seeds):
    with pytest.raises(UserError):
        NoiseStream(seeds)
    with pytest.raises(UserError):
        draw_noise(seeds, SHAPE)


def test_seeds_that_the_generator_cannot_tell_apart():
    """Why seeds end at 2**32: the generator reads 32 bits, so larger seeds would repeat earlier images."""
    big, small = (torch.Generator().manual_seed(seed) for seed in (2**32 + 5, 5))
    assert torch.equal(torch.randn(9, generator=big), torch.randn(9, generator=small))


def test_pixels_round_and_clip():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert torch.equal(to_uint8(to_float(levels, torch.float64)), levels)
    jitter = to_float(levels, torch.float64)[1:-1] + torch.tensor([[-0.49], [0.49]]).double() / 127.5
    assert torch.equal(to_uint8(jitter), levels[1:-1].expand(2, -1))
    assert to_uint8(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]
