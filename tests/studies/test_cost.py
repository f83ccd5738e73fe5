"""The cost of a plan: operations counted by hand, and what teachers and samplers add."""

from __future__ import annotations

import pytest

from repro.errors import UserError
from repro.studies import SCALES, Plan
from repro.studies.cost import cost_of, flops_of_network


def test_operations_of_a_network_are_those_of_its_matrices():
    """A block of DiT: for each token twelve products of width squared, a multiply and an add each, and attention."""
    shallow, deep = (
        flops_of_network("DiT", {"patch_size": 4, "width": 24, "depth": depth, "heads": 2}, 1, 8, 0) for depth in (1, 2)
    )
    tokens, width = 4, 24
    attention = 2 * 2 * tokens * tokens * width
    modulation = 2 * 6 * width * width
    assert deep - shallow == 2 * tokens * 12 * width * width + attention + modulation


def test_trainings_and_drawings_add_up(tmp_path):
    plan = Plan("mine", tmp_path, SCALES["paper"])
    size = {"image_size": 8, "channels": 1}
    settings = {"model": "Diffusion", "model.network": "MLP", "model.network.width": 16, "data": "Digits"}
    settings |= {"data.batch_size": 10, "trainer.max_steps": 1000, "model.sampler": "Heun", "model.sampler.steps": 3}
    plan.draw("a", plan.fit("a", [], settings), "0-99")
    forward = flops_of_network("MLP", {"width": 16}, size["channels"], size["image_size"], 0)
    flops = forward * (3 * 10 * 1000 + 100 * 5)
    told = cost_of(plan.jobs(), dict, flops / 3600 / 7e12)
    assert told.startswith(f"cost: 7 GPU-hours for {flops:.3g} floating-point operations")
    assert "not counted" not in told
    plan.fit("gan", "wgan_gp_cifar", {"model": "GAN"}, seconds=7200)
    assert "and about 2 more for 1 jobs whose operations are not counted" in cost_of(plan.jobs(), dict, 40)


def test_a_throughput_is_above_zero():
    with pytest.raises(UserError, match="--gpu_tflops is 0; give a number above 0"):
        cost_of([], dict, 0)
