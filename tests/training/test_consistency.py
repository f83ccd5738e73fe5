"""Losses of consistency models: recorded ones, schedules, closed forms, and the boundary."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from consistency_models import SHAPE, Closed, distilled, small, trained_on_data
from safetensors.torch import load_file
from torch import nn

from repro.denoisers import GaussianDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.kernels import EDM, VE, VP
from repro.networks.song_unet import SongUNet
from repro.noise import draw_noise
from repro.parameterizations import ConsistencyPreconditioning, EDMPreconditioning
from repro.training.consistency import ConsistencyDistillation, ConsistencyTraining, flow_step
from repro.training.consistency_losses import adaptive_decay, distance, progressive_levels, weight

ORACLES = Path(__file__).parents[1] / "oracles" / "consistency"


class Recorded(nn.Module):
    """A network that answers as it did in a recorded run, if it is given the same."""

    image_shape, num_classes = (3, 8, 8), 0

    def __init__(self, tensors, prefix):
        super().__init__()
        self.calls = [[tensors[f"{prefix}_{i}_{part}"] for part in ("in", "level", "out")] for i in range(2)
                      if f"{prefix}_{i}_in" in tensors]  # fmt: skip

    def forward(self, x, noise_level, labels=None):
        shown, level, answer = self.calls.pop(0)
        torch.testing.assert_close(x.float(), shown, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(noise_level.float(), level, rtol=1e-5, atol=1e-4)
        return answer.double()


@pytest.mark.parametrize(
    ("metric", "weighting"),
    [("l1", "uniform"), *[("l2", name) for name in ("uniform", "karras", "snr", "snr_plus_one", "truncated_snr")]],
)
@pytest.mark.parametrize("kind", ["ct", "cd"])
def test_recorded_losses(kind, metric, weighting):
    tensors = load_file(ORACLES / "losses" / "io.safetensors")
    expected = tensors[f"{kind}_{metric}_{weighting.replace('snr_plus_one', 'snrp1')}"]
    boundary, plain = ConsistencyPreconditioning(0.5, 250.0), EDMPreconditioning(0.5, 250.0)
    student, target = (
        NetworkDenoiser(Recorded(tensors, f"{kind}_{name}"), EDM(), boundary) for name in ("student", "target")
    )
    settings = {"distance": metric, "weighting": weighting, "levels": 18}
    if kind == "ct":
        module = ConsistencyTraining(small(), last_levels=None, **settings)
    else:
        model = NetworkDenoiser(Recorded(tensors, "cd_teacher"), EDM(), plain)
        model.image_shape = SHAPE
        module = ConsistencyDistillation(model, small(), **settings)
    x_0, eps = tensors["x0"].double(), tensors["noise"].double()
    loss = module.loss_at(student, target, x_0, eps, *module.pairs(tensors["indices"]))
    torch.testing.assert_close(loss, expected.double(), rtol=1e-5, atol=2e-6)


def test_recorded_schedules():
    settings = json.loads((ORACLES / "schedules" / "meta.json").read_text())["constructor_kwargs"]
    tensors = load_file(ORACLES / "schedules" / "io.safetensors")
    checked = 0
    for name, given in settings.items():
        if given["scale_mode"] == "progdist":
            continue
        rising = given["scale_mode"] == "progressive"
        module = trained_on_data(
            levels=given["start_scales"],
            last_levels=given["end_scales"] if rising else None,
            schedule_steps=given["total_steps"],
            target_decay=given["start_ema"],
            adaptive_decay=given["target_ema_mode"] == "adaptive",
        )
        for step, levels, decay in zip(
            *(tensors[f"{name}_{part}"].tolist() for part in ("step", "N", "mu")), strict=True
        ):
            module.steps = step
            assert module.levels_now == levels, (name, step)
            assert module.target_decay_now == pytest.approx(decay, abs=1e-12)
            checked += 1
    assert checked > 500
    for number in (2, 3, 18, 40, 151):
        module = trained_on_data(levels=number, last_levels=None)
        t, s = module.pairs(torch.arange(number - 1))
        grid = tensors[f"t_grid_N{number}"].flip(0)
        torch.testing.assert_close(torch.cat([t, s[-1:]]), grid, rtol=1e-12, atol=0)
        assert torch.equal(t[1:], s[:-1])
        assert s[-1] == 0.002


def test_the_schedule_ends_with_its_last_step():
    assert progressive_levels(10**9, 2, 150, 800_000) == progressive_levels(800_000, 2, 150, 800_000) == 151
    assert adaptive_decay(0.9, 2, 151) == pytest.approx(math.exp(2 * math.log(0.9) / 150))


def test_distances_and_weights():
    one, other = torch.zeros(2, 1, 2, 2), torch.tensor([[0.0, 1, 2, 3], [0, 0, 0, 0]]).view(2, 1, 2, 2)
    assert distance(one, other, "l2").tolist() == [3.5, 0.0]
    assert distance(one, other, "l1").tolist() == [1.5, 0.0]
    c = 0.00054 * 4**0.5
    huber = ((14 + c**2) ** 0.5 - c) / 4**0.5
    assert distance(one, other, "pseudo_huber").tolist() == pytest.approx([huber, 0.0], rel=1e-6)
    assert weight(torch.tensor([0.5, 4.0]), "karras", 0.25).tolist() == [20.0, 16.0625]
    for function in (lambda: distance(one, other, "l3"), lambda: weight(one, "snrr")):
        with pytest.raises(UserError, match="did you mean"):
            function()


@pytest.mark.parametrize("kernel", [EDM(), VP(), VE()], ids=lambda kernel: type(kernel).__name__)
@pytest.mark.parametrize(("solver", "order"), [("euler", 2), ("heun", 3)])
def test_one_step_of_the_flow_has_its_order(kernel, solver, order):
    denoiser = GaussianDenoiser(kernel, SHAPE, 0.3, 0.5)
    t = kernel.time_of_ratio(torch.full((4,), 0.7, dtype=torch.float64))
    x = denoiser.scales(draw_noise(range(4), SHAPE).double(), t)[0] * draw_noise(range(4), SHAPE).double()
    errors = []
    for step in (0.02, 0.01):
        s = kernel.time_of_ratio(kernel.ratio(t) - step)
        errors.append((flow_step(denoiser, x, t, s, solver=solver) - denoiser.transport(x, t, s)).abs().max().item())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.1)


def closed_loss(module, levels):
    """Sum over all pairs of levels of the mean loss of the closed form, on Gaussian data."""
    module.schedule = replace(module.schedule, levels=levels)
    student = NetworkDenoiser(Closed(0.2), EDM(), ConsistencyPreconditioning())
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, 40, *SHAPE, generator=generator, dtype=torch.float64)
    total = 0.0
    for index in range(levels - 1):
        t, s = module.pairs(torch.full((40,), index))
        total += module.loss_at(student, student, 0.2 + 0.5 * noise[0], noise[1], t, s).mean().item()
    return total


@pytest.mark.parametrize(("solver", "order"), [("heun", 5), ("euler", 3)])
def test_the_closed_form_is_what_distillation_converges_to(solver, order):
    """One squared error of a step is of order 2(p + 1), the sum over all steps of 2p + 1."""
    module = distilled(solver=solver)
    losses = [closed_loss(module, levels) for levels in (25, 49, 97)]
    assert math.log2(losses[1] / losses[2]) == pytest.approx(order, abs=0.4)
    assert losses[2] < 1e-3 * (1 if solver == "euler" else 1e-2)
    worse = NetworkDenoiser(Closed(0.2, 0.6), EDM(), ConsistencyPreconditioning())
    t, s = module.pairs(torch.full((40,), 60))
    x_0, eps = torch.randn(2, 40, *SHAPE, dtype=torch.float64)
    right = NetworkDenoiser(Closed(0.2), EDM(), ConsistencyPreconditioning())
    given, best = (module.loss_at(f, f, x_0, eps, t, s).mean() for f in (worse, right))
    assert given > 20 * best


def test_the_closed_form_is_what_training_converges_to():
    """Its guess of the next point is right on average only: the loss vanishes too, but more slowly."""
    module = trained_on_data(last_levels=None)
    losses = [closed_loss(module, levels) for levels in (49, 97, 193)]
    assert math.log2(losses[1] / losses[2]) == pytest.approx(1, abs=0.2)


def test_the_function_is_the_identity_at_the_smallest_time():
    module = trained_on_data()
    torch.nn.init.normal_(module.trained.network.outer.weight)
    x = torch.randn(5, *SHAPE)
    t = torch.tensor(0.002, dtype=torch.float64)
    for state_ in (x, x.double()):
        assert torch.equal(module.trained.denoise(state_, t), state_)
        assert not torch.equal(module.trained.denoise(state_, 2 * t), state_)


def test_student_and_target_drop_the_same():
    unet = SongUNet(8, 1, width=8, channel_mult=[1], num_blocks=1, attention_at=[], dropout=0.5)
    for parameter in unet.parameters():
        nn.init.normal_(parameter, std=0.3)
    module = trained_on_data(network=unet).train()
    x_0, eps, t = torch.randn(4, *SHAPE), torch.randn(4, *SHAPE), torch.full((4,), 0.5)
    assert torch.equal(module.loss_at(module.trained, module.target, x_0, eps, t, t), torch.zeros(4))
    answers = [module.trained.denoise(x_0 + eps / 2, t) for _ in range(2)]
    assert (answers[0] - answers[1]).abs().max() > 1e-3


def test_an_unlike_kernel_of_the_teacher_is_seen_through_the_students(tmp_path):
    torch.manual_seed(0)
    ends = VP().ratio(torch.tensor([1e-3, 1.0], dtype=torch.float64)).tolist()
    x_0, eps = torch.randn(2, 6, *SHAPE, dtype=torch.float64)
    aims = []
    for kernel in (VP(), EDM(*ends)):
        module = distilled(GaussianDenoiser(kernel, SHAPE, 0.2, 0.5), kernel=EDM(0.02, 80.0))
        t, s = module.pairs(torch.arange(6))
        aims.append(module.step_back(x_0 + t[:, None, None, None] * eps, t, s, x_0, eps, None))
    torch.testing.assert_close(*aims, rtol=1e-9, atol=1e-9)
