"""Options and mistakes, precision of the network, and steering a walk from outside."""

import pytest
import torch
from torch import nn

from repro import records, registry
from repro.denoisers import Denoiser, EmpiricalDenoiser, GaussianDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.kernels import EDM, VE, VP, Flow, SubVP
from repro.noise import NoiseStream
from repro.parameterizations import X0, EDMPreconditioning, Eps, V, Velocity
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.ode import RK45
from repro.samplers.steps import time_grid
from repro.samplers.stochastic import Ancestral, EDMStochastic

SAMPLERS = [name for name in registry.names("samplers") if name != "PosteriorSampler"]  # tests/inverse


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Euler", {"steps": 0}, "steps is 0; give at least 1"),
        ("Euler", {"spacing": "log_srn"}, "did you mean 'log_snr'"),
        ("Euler", {"coordinate": "tme"}, "did you mean 'time'"),
        ("Euler", {"rho": 0.0}, "rho is 0"),
        ("Heun", {"predictor": 0.0}, "predictor is 0"),
        ("Heun", {"ratios": [1.0, 2.0]}, "ratios must fall"),
        ("Heun", {"ratios": [1.0, 0.0]}, "stay above 0"),
        ("Heun", {"ratios": []}, "ratios must fall"),
        ("Heun", {"ratios": [3.0], "final_denoise": False}, "steps is 0"),
        ("DPMSolver", {"order": 4}, "order is 4; DPMSolver singlestep has orders 1, 2, 3"),
        ("DPMSolver", {"order": 1, "method": "adaptive"}, "has orders 2, 3"),
        ("DPMSolver", {"method": "multi"}, "did you mean 'multistep'"),
        ("DPMSolver", {"algorithm": "dpm_solver++"}, "did you mean 'dpmsolver++'"),
        ("DPMSolver", {"solver_type": "tailor"}, "did you mean 'taylor'"),
        ("DPMSolver", {"steps": 2, "method": "multistep"}, "steps is 2; give at least 3"),
        ("DPMSolver", {"steps": 1, "final_denoise": True}, "give at least 2"),
        ("DPMSolver", {"rtol": 0.0, "method": "adaptive"}, "must be above 0"),
        ("RK45", {"atol": -1.0}, "must be above 0"),
        ("Ancestral", {"eta": 1.5}, "eta is 1.5"),
        ("EDMStochastic", {"order": 3}, "order is 3"),
        ("EDMStochastic", {"churn": -1.0}, "churn is -1"),
        ("EDMStochastic", {"noise_scale": -1.0}, "noise_scale is -1"),
    ],
)
def test_mistakes_when_built(name, options, message):
    with pytest.raises(UserError, match=message.replace("+", r"\+")) as caught:
        registry.build("samplers", name, **options)
    assert "\n" not in str(caught.value)


def test_mistakes_when_sampling():
    denoiser, noise = GaussianDenoiser(EDM()), torch.randn(2, 1, 8, 8)
    with pytest.raises(UserError, match="Ancestral draws noise at each step; give it a NoiseStream"):
        Ancestral().sample(denoiser, noise)
    with pytest.raises(UserError, match=r"noise is \(1, 4, 4\), the denoiser's images are \(1, 8, 8\)"):
        Heun().sample(denoiser, torch.randn(2, 1, 4, 4))
    for sampler in (Euler(t_end=90.0), DPMSolver(t_end=90.0), RK45(t_end=90.0), Heun(t_end=0.0)):
        with pytest.raises(UserError, match=r"t_end is .*; times of EDM lie between 0 and 80"):
            sampler.sample(denoiser, noise)


@pytest.mark.parametrize("name", ["Euler", "Heun", "Ancestral", "EDMStochastic", "Consistency"])
def test_ratios_start_where_the_noise_stands(name):
    for kernel, start in ((EDM(), "80"), (VP(), "152.167")):
        sampler = registry.build("samplers", name, ratios=[7.0, 1.0])
        with pytest.raises(UserError, match=f"ratios start at 7, but the noise of .* stands at {start}.*make that"):
            sampler.sample(GaussianDenoiser(kernel), NoiseStream([0]))
    registry.build("samplers", name, ratios=[79.5, 1.0]).sample(GaussianDenoiser(EDM()), NoiseStream([0]))


@pytest.mark.parametrize("name", SAMPLERS)
def test_records_name_clip_only_where_it_is_on(name):
    """Records, and the fingerprints of banks that were made of them, are those of older versions."""
    record = records.record_of(registry.build("samplers", name))
    assert ("clip" in record["args"]) == (name == "Consistency")
    clipped = records.record_of(registry.build("samplers", name, clip=True))
    assert clipped["args"] == record["args"] | {"clip": True}
    assert records.rebuild(clipped).clip


@pytest.mark.parametrize("name", SAMPLERS)
def test_rebuilt_from_its_record(name):
    sampler = registry.build("samplers", name)
    again = records.rebuild(records.record_of(sampler))
    images = [each.sample(GaussianDenoiser(EDM()), NoiseStream([1])) for each in (sampler, again)]
    assert torch.equal(*images)


@pytest.mark.parametrize("spacing", ["edm", "time_uniform", "time_quadratic", "log_snr"])
def test_grid_is_even_in_its_own_function(spacing):
    for kernel in (VP(), VE(), EDM(), SubVP(), Flow()):
        times = time_grid(kernel, spacing, 10, kernel.t_max, kernel.t_min, rho=5.0)
        assert times[0] == kernel.t_max
        assert times[-1] == kernel.t_min
        value = {
            "edm": lambda t, k=kernel: (k.sigma(t) / k.alpha(t)) ** 0.2,
            "time_uniform": lambda t: t,
            "time_quadratic": torch.sqrt,
            "log_snr": lambda t, k=kernel: (k.alpha(t) / k.sigma(t)).log(),
        }[spacing](times)
        steps = value.diff()
        assert ((steps / steps.mean() - 1).abs() < 1e-7).all()
        assert len(times) == 11


def test_one_step_is_the_denoiser():
    denoiser = EmpiricalDenoiser(torch.randint(0, 256, (5, 1, 2, 2), dtype=torch.uint8), EDM())
    noise = torch.randn(3, 1, 2, 2)
    once = denoiser.denoise(noise.double() * 80, torch.tensor(80.0, dtype=torch.float64))
    for sampler in (Euler(1), Heun(1), DPMSolver(2, order=1, method="multistep", final_denoise=True, t_end=79.99)):
        assert (sampler.sample(denoiser, noise) - once).abs().max() < 1e-4


class Convolutions(nn.Module):
    image_shape, num_classes = (3, 8, 8), 0

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(4, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 3, 3, padding=1))

    def forward(self, x, noise_level, labels=None):
        level = (noise_level / (1 + noise_level.abs()))[:, None, None, None].expand(-1, 1, *x.shape[2:])
        return self.body(torch.cat([x, level], 1))


@pytest.mark.parametrize(
    ("kernel", "meaning"),
    [
        (EDM(), EDMPreconditioning()),
        (VP(), EDMPreconditioning()),
        (VP(), V()),
        (VP(), X0()),
        (SubVP(), Eps("log_ratio")),
        (VE(), EDMPreconditioning()),
        (Flow(), Velocity()),
    ],
    ids=lambda built: type(built).__name__,
)
@pytest.mark.parametrize("sampler", [Heun(18), DPMSolver(20), Euler(30)], ids=lambda built: type(built).__name__)
def test_float32_network_follows_the_float64_one(sampler, kernel, meaning):
    images = []
    for dtype in (torch.float32, torch.float64):
        denoiser = NetworkDenoiser(Convolutions().to(dtype), kernel, meaning)
        images.append(sampler.sample(denoiser, NoiseStream(range(4))))
    assert images[0].dtype == torch.float64
    scale = images[1].abs().max().item()
    assert (images[0] - images[1]).abs().max().item() < 1e-4 * max(scale, 1)
    assert not torch.equal(*images)


class Guided(Denoiser):
    """Answers as another denoiser does, and keeps the gradient of an observation's error at each step's start."""

    def __init__(self, denoiser, mask, observed):
        super().__init__()
        self.denoiser, self.mask, self.observed = denoiser, mask, observed
        self.kernel, self.image_shape = denoiser.kernel, denoiser.image_shape
        self.gradient, self.calls = None, 0

    def denoise(self, x_t, t, labels=None):
        self.calls += 1
        if self.gradient is not None:
            return self.denoiser.denoise(x_t, t, labels)
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_0 = self.denoiser.denoise(x_t, t, labels)
            error = ((x_0 - self.observed) * self.mask).flatten(1).norm(dim=1).sum()
        self.gradient = torch.autograd.grad(error, x_t)[0]
        return x_0.detach()

    def take(self):
        gradient, self.gradient = self.gradient, None
        return gradient


def inpainting():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (30, 1, 4, 4), generator=generator, dtype=torch.uint8)
    mask = torch.ones(4, 4, dtype=torch.float64)
    mask[1:3, 1:3] = 0
    return images, mask, images[7].double() / 127.5 - 1


def test_posterior_sampling_from_outside_the_sampler():
    """33 third-order steps and one of first order, 100 evaluations, a correction after each step: as the paper does."""
    images, mask, observed = inpainting()
    guided = Guided(EmpiricalDenoiser(images, VP()), mask, observed)
    sampler, steps = DPMSolver(steps=100, order=3, spacing="time_uniform"), 0
    for step in sampler.trajectory(guided, NoiseStream(range(8))):
        step.x_s = step.x_s - guided.take()
        steps += 1
    assert (steps, guided.calls) == (34, 100)
    free = sampler.sample(guided.denoiser, NoiseStream(range(8)))
    error, error_free = (((x - observed) * mask).flatten(1).norm(dim=1).mean().item() for x in (step.x_s, free))
    assert error < 0.2 * error_free


def test_steered_walk_equals_a_loop_written_out():
    images, mask, observed = inpainting()
    kernel = VP()
    plain = EmpiricalDenoiser(images, kernel)
    sampler, guided = Euler(12, "time_uniform"), Guided(plain, mask, observed)
    for step in sampler.trajectory(guided, NoiseStream([3, 4])):
        step.x_s = step.x_s - 0.5 * guided.take()
    times = torch.linspace(1, 1e-3, 12, dtype=torch.float64)
    x = NoiseStream([3, 4]).draw((1, 4, 4)).double()
    for i, t in enumerate(times):
        x = x.detach().requires_grad_()
        x_0 = plain.denoise(x, t)
        (gradient,) = torch.autograd.grad(((x_0 - observed) * mask).flatten(1).norm(dim=1).sum(), x)
        alpha, sigma = (kernel.alpha(times[i + 1]), kernel.sigma(times[i + 1])) if i < 11 else (1.0, 0.0)
        eps = (x - kernel.alpha(t) * x_0) / kernel.sigma(t)
        x = alpha * x_0 + sigma * eps - 0.5 * gradient
    assert (step.x_s - x).abs().max() < 1e-9


def test_gradients_are_not_kept():
    network = Convolutions()
    denoiser = NetworkDenoiser(network, EDM(), EDMPreconditioning())
    for sampler in (Heun(3), DPMSolver(4), RK45(rtol=1e-2, atol=1e-2), EDMStochastic(3)):
        assert not sampler.sample(denoiser, NoiseStream([0])).requires_grad
    for step in Heun(3).trajectory(denoiser, NoiseStream([0])):
        assert not step.x_0.requires_grad
        assert torch.is_grad_enabled()
