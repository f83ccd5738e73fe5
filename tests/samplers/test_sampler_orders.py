"""Orders of convergence, measured by halving the step with the end fixed at ratio 0.1, in float64."""

import math

import pytest
import torch

from repro import registry
from repro.denoisers import EmpiricalDenoiser, GaussianDenoiser
from repro.kernels import EDM, VP
from repro.noise import NoiseStream
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.heun import Heun
from repro.samplers.ode import RK45
from repro.testing.samplers import gaussian_error

KERNELS = registry.names("kernels")
SOLVERS = {"Euler": ("Euler", {}, 1, 0.1), "Heun": ("Heun", {}, 2, 0.15)}
for algorithm in ("dpmsolver", "dpmsolver++"):
    for order, allowed in ((1, 0.1), (2, 0.15), (3, 0.3)):
        options = {"algorithm": algorithm, "order": order, "method": "singlestep_fixed"}
        SOLVERS[f"{algorithm}-{order}"] = ("DPMSolver", options, order, allowed)
    SOLVERS[f"{algorithm}-multistep"] = ("DPMSolver", options | {"order": 2, "method": "multistep"}, 2, 0.15)


def end(kernel):
    return kernel.time_of_ratio(torch.tensor(0.1, dtype=torch.float64)).item()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_order(solver, kernel):
    name, options, order, allowed = SOLVERS[solver]
    kernel = registry.build("kernels", kernel)
    errors = []
    for evaluations in (96, 192):
        steps = evaluations // 2 if name == "Heun" else evaluations
        sampler = registry.build("samplers", name, steps=steps, t_end=end(kernel), final_denoise=False, **options)
        errors.append(gaussian_error(sampler, kernel, sampler.t_end))
    assert abs(math.log2(errors[0] / errors[1]) - order) < allowed, errors


@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++"])
@pytest.mark.parametrize("order", [2, 3])
def test_order_of_taylor_form(order, algorithm):
    errors = []
    for steps in (96, 192):
        sampler = DPMSolver(steps, order, "singlestep_fixed", algorithm, "taylor", t_end=end(VP()))
        errors.append(gaussian_error(sampler, VP(), sampler.t_end))
    assert abs(math.log2(errors[0] / errors[1]) - order) < 0.1 * order, errors


@pytest.mark.parametrize("kernel", [name for name in KERNELS if name != "DiscreteVP"])
@pytest.mark.parametrize(("name", "order", "allowed"), [("Euler", 1, 0.1), ("Heun", 2, 0.15)])
def test_order_in_time(name, order, allowed, kernel):
    """DiscreteVP is left out: its alpha has a kink at every step of the table, so x(t) is not smooth."""
    kernel = registry.build("kernels", kernel)
    errors = []
    for steps in (100, 200):
        sampler = registry.build(
            "samplers", name, steps=steps, t_end=end(kernel), final_denoise=False, coordinate="time"
        )
        errors.append(gaussian_error(sampler, kernel, sampler.t_end))
    assert abs(math.log2(errors[0] / errors[1]) - order) < allowed, errors


@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++"])
def test_multistep_of_order_3_is_second_order(algorithm):
    """As the authors run it, with half the second derivative; so it is even when its first two steps are exact."""
    kernel = EDM()
    denoiser = GaussianDenoiser(kernel, (1, 3, 5), mean=0.3, std=0.5)
    errors = []
    for steps in (60, 120):
        solver = DPMSolver(steps, 3, "multistep", algorithm, t_end=0.1)
        for i, step in enumerate(solver.trajectory(denoiser, NoiseStream([0]))):
            if i == 0:
                start, t = step.x_t, step.t
            if i < 2:
                step.x_s = denoiser.transport(start, t, step.s)
        errors.append((step.x_s - denoiser.transport(start, t, step.s)).abs().max().item())
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.2, errors


@pytest.mark.parametrize("predictor", [0.5, 2 / 3, 1.0])
def test_second_order_beyond_gaussians(predictor):
    """On a mixture of points, whose solution has no closed form, against a far finer walk."""
    images = torch.randint(0, 256, (4, 1, 2, 2), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    denoiser = EmpiricalDenoiser(images, VP())

    def walk(steps):
        sampler = Heun(steps, t_end=end(VP()) * 4, final_denoise=False, predictor=predictor)
        return sampler.sample(denoiser, NoiseStream(range(6)))

    finest = RK45(1e-10, 1e-10, t_end=end(VP()) * 4).sample(denoiser, NoiseStream(range(6)))
    errors = [(walk(steps) - finest).square().mean().sqrt().item() for steps in (100, 200)]
    assert abs(math.log2(errors[0] / errors[1]) - 2) < 0.15, errors
