"""The sampler of consistency models: its steps written out, its levels, one jump, and mistakes."""

import pytest
import torch

from repro import registry
from repro.errors import UserError
from repro.kernels import EDM
from repro.noise import NoiseStream, draw_noise
from repro.samplers.consistency import Consistency
from repro.testing.samplers import GaussianConsistency

SHAPE = (2, 4, 4)
KERNELS = registry.names("kernels")


def function(kernel, std=0.5):
    return GaussianConsistency(kernel, SHAPE, 0.3, std)


def test_steps_written_out():
    """x <- f(x, t) + sqrt(t'^2 - eps^2) z, for noise levels t > t' and the numbered noises of each image."""
    stream, f = NoiseStream(range(4)), function(EDM(0.01, 50.0))
    x = 50.0 * stream.draw(SHAPE).double()
    levels = [50.0, 3.0, 0.2]
    for i, level in enumerate(levels):
        x = f.denoise(x, torch.tensor(level, dtype=torch.float64))
        if i < 2:
            x = x + (levels[i + 1] ** 2 - 0.01**2) ** 0.5 * stream.draw(SHAPE).double()
    given = Consistency(ratios=levels).sample(f, NoiseStream(range(4)))
    torch.testing.assert_close(given, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_step_is_the_end_of_the_flow(kernel):
    kernel = registry.build("kernels", kernel)
    first, last = torch.tensor([kernel.t_max, kernel.t_min], dtype=torch.float64)
    f = function(kernel)
    right = f.transport(kernel.prior_scale * draw_noise(range(5), SHAPE).double(), first, last) / kernel.alpha(last)
    assert torch.equal(Consistency().sample(f, NoiseStream(range(5))), right)
    assert torch.equal(Consistency().sample(f, draw_noise(range(5), SHAPE)), right)


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "EDM"])
def test_equal_ratios_give_equal_images(name):
    kernel = registry.build("kernels", name)
    ends = kernel.ratio(torch.tensor([kernel.t_min, kernel.t_max], dtype=torch.float64))
    alpha = kernel.alpha(torch.tensor(kernel.t_max, dtype=torch.float64)).item()
    images = []
    for each in (kernel, EDM(*ends.tolist())):
        each.prior_scale = ends[1].item() * (alpha if each is kernel else 1.0)
        images.append(Consistency(4).sample(function(each), NoiseStream(range(5))))
    assert (images[0] - images[1]).abs().max() < 1e-8


@pytest.mark.parametrize("steps", [1, 4])
def test_an_image_is_the_same_bits_in_any_batch(steps):
    sampler, f = Consistency(steps), function(EDM())
    whole = sampler.sample(f, NoiseStream(range(20)))
    for size in (1, 7):
        parts = [sampler.sample(f, NoiseStream(range(i, min(i + size, 20)))) for i in range(0, 20, size)]
        assert torch.equal(torch.cat(parts), whole)


def test_levels_are_even_in_the_root():
    times = Consistency(5, rho=3.0).times(EDM())
    root = torch.cat([times, torch.tensor([0.002], dtype=torch.float64)]) ** (1 / 3)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(5), rtol=1e-9, atol=0)
    assert times[0] == 80.0


def test_every_answer_is_clipped():
    wide = function(EDM(), std=5.0)
    assert Consistency().sample(wide, NoiseStream(range(9))).abs().max() > 2
    steps = list(Consistency(3, clip=True).trajectory(wide, NoiseStream(range(9))))
    assert all(step.x_0.abs().max() == 1 for step in steps)


def test_mistakes():
    with pytest.raises(UserError, match="Consistency draws noise at each step; give it a NoiseStream"):
        Consistency(2).sample(function(EDM()), torch.zeros(1, *SHAPE))
    for arguments, message in (({"steps": 0}, "steps is 0"), ({"ratios": [1.0, 80.0]}, "ratios must fall")):
        with pytest.raises(UserError, match=message):
            registry.build("samplers", "Consistency", **arguments)
