"""Every registered sampler under every registered kernel, on data for which the right answer is known."""

from itertools import pairwise

import pytest
import torch

from repro import registry
from repro.denoisers import EmpiricalDenoiser, GaussianDenoiser, UnderKernel
from repro.errors import UserError
from repro.images import to_float
from repro.kernels import EDM, VE, VP, SubVP
from repro.noise import NoiseStream
from repro.samplers.adaptive import attempts
from repro.samplers.base import Run
from repro.samplers.consistency import Consistency
from repro.samplers.dpm_solver import DPMSolver
from repro.samplers.euler import Euler
from repro.samplers.heun import Heun
from repro.samplers.ode import RK45
from repro.samplers.stochastic import Ancestral, EDMStochastic
from repro.testing.samplers import CountedDenoiser, check_device, check_sampler, gaussian_error

KERNELS = registry.names("kernels")
SAMPLERS = [name for name in registry.names("samplers") if name != "PosteriorSampler"]  # tests/inverse


def kind(built):
    return type(built).__name__


FEWER_STEPS = {"Ancestral": {"steps": 80}, "EDMStochastic": {"steps": 20, "churn": 3}, "Euler": {"steps": 40}}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_laws(name, kernel):
    sampler = registry.build("samplers", name, **FEWER_STEPS.get(name, {}))
    check_sampler(sampler, registry.build("kernels", kernel), 0.08)


@pytest.mark.parametrize(
    "sampler",
    [
        Euler(steps=40, final_denoise=False),
        Euler(steps=40, coordinate="time", spacing="log_snr"),
        Heun(steps=20, coordinate="time", predictor=0.5),
        Heun(steps=20, spacing="log_snr", final_denoise=False),
        Heun(ratios=[80.0, 40, 20, 10, 6, 4, 3, 2.5, 2, 1.5, 1.2, 1, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1, 0.05, 0.01]),
        DPMSolver(steps=40, method="multistep", order=3, algorithm="dpmsolver++", final_denoise=True),
        DPMSolver(steps=40, order=2, solver_type="taylor", spacing="edm"),
        DPMSolver(steps=41, method="singlestep_fixed", algorithm="dpmsolver++"),
        RK45(rtol=1e-8, atol=1e-8, final_denoise=True),
        Ancestral(40, eta=0.5, spacing="log_snr"),
        EDMStochastic(60, order=1, churn=5),
        Consistency(steps=3),
        Consistency(ratios=[80.0, 20, 5, 1, 0.3, 0.01]),
    ],
    ids=kind,
)
def test_laws_of_other_settings(sampler):
    check_sampler(sampler, EDM(), 0.06)


ON_A_DEVICE = {
    **{name: registry.build("samplers", name) for name in SAMPLERS},
    "RK45": RK45(rtol=0.1, atol=0.1),  # so that there are few steps
    "DPMSolver adaptive": DPMSolver(method="adaptive", rtol=0.5, atol=0.1),
    "DPMSolver multistep": DPMSolver(method="multistep", final_denoise=True, steps=3, order=2),
    "Heun in time": Heun(steps=4, coordinate="time", predictor=0.5, clip=True),
    "Consistency of steps": Consistency(steps=3),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_no_step_makes_the_host_wait(name, kernel):
    """But adaptive ones, as often as stated."""
    check_device(ON_A_DEVICE[name], registry.build("kernels", kernel))


class LooksAtItsState(Euler):
    def step(self, run, x_t, t, s):
        return super().step(run, x_t if x_t.isfinite().all() else x_t * 0, t, s)


class DrawsOnTheHost(Euler):
    def step(self, run, x_t, t, s):
        return super().step(run, x_t + torch.zeros(x_t.shape).to(x_t), t, s)


class ForgetsTheDevice(Euler):
    def step(self, run, x_t, t, s):
        x_0, x_s = super().step(run, x_t, t, s)
        return x_0, x_s + torch.zeros(x_s.shape[1:])


class LooksTwice(RK45):
    def _try(self, *arguments):
        assert arguments[3].isfinite().all()
        return super()._try(*arguments)


LooksTwice.__name__ = "RK45"


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (LooksAtItsState(4), r"0 times are stated: .*item\(\)"),
        (DrawsOnTheHost(4), "0 times are stated: .*pageable memory"),
        (ForgetsTheDevice(4), "left on the CPU"),
        (LooksTwice(), r"2 times are stated: .*item\(\)"),
    ],
    ids=["reads", "copies", "forgets", "adaptive"],
)
def test_the_law_of_devices_notices(sampler, message):
    with pytest.raises(AssertionError, match=message):
        check_device(sampler, EDM())


@pytest.mark.parametrize("spacing", ["time_uniform", "time_quadratic", "log_snr", "edm"])
@pytest.mark.parametrize("name", ["Euler", "Heun", "DPMSolver"])
def test_spacings_reach_the_closed_form(name, spacing):
    for kernel in (VP(), VE(), SubVP()):
        sampler = registry.build("samplers", name, steps=80, spacing=spacing, final_denoise=True)
        assert gaussian_error(sampler, kernel) < 0.05


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("algorithm", ["dpmsolver", "dpmsolver++"])
def test_adaptive_dpm_solver(order, algorithm):
    def solver(tolerance):
        return DPMSolver(method="adaptive", order=order, algorithm=algorithm, rtol=tolerance, atol=tolerance)

    for tolerance in (1e-2, 1e-3, 1e-4, 1e-5):
        assert gaussian_error(solver(tolerance), VP(), VP().t_min) < 2 * tolerance
    sampler, counted = solver(1e-4), CountedDenoiser(GaussianDenoiser(VP()))
    assert sampler.evaluations is None
    sampler.sample(counted, NoiseStream([0, 1]))
    assert sampler.evaluations == counted.calls > 20


@pytest.mark.parametrize("kernel", KERNELS)
def test_rk45_reaches_its_tolerance(kernel):
    kernel = registry.build("kernels", kernel)
    errors = [gaussian_error(RK45(rtol=tol, atol=tol), kernel, kernel.t_min) for tol in (1e-5, 1e-8)]
    assert errors[0] < 2e-4
    assert errors[1] < 1e-7


def pictures(count=12, size=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)


EQUIVALENT = [
    Euler(12),
    Heun(9),
    Heun(9, predictor=0.5, spacing="log_snr"),
    DPMSolver(15),
    DPMSolver(14, algorithm="dpmsolver++", order=2, spacing="edm"),
    DPMSolver(12, method="multistep", order=3),
    RK45(),
    Ancestral(12),
    EDMStochastic(9),
]


@pytest.mark.parametrize("name", [name for name in KERNELS if name != "EDM"])
@pytest.mark.parametrize("sampler", EQUIVALENT, ids=kind)
def test_equal_ratios_give_equal_images(sampler, name):
    """The paper's subject in miniature: kernels are ways of writing one process, so one noise gives one image."""
    kernel = registry.build("kernels", name)
    ends = kernel.ratio(torch.tensor([kernel.t_min, kernel.t_max], dtype=torch.float64)).tolist()
    images = []
    for each in (kernel, EDM(*ends)):
        denoiser, stream = EmpiricalDenoiser(pictures(), each), NoiseStream(range(5))
        x = each.sigma(torch.tensor(each.t_max, dtype=torch.float64)) * stream.draw((1, 4, 4)).double()
        *_, last = sampler.walk(Run(denoiser, None, stream), x)
        images.append(last.x_s if last.s is None else last.x_s / each.alpha(last.s.view(-1, 1, 1, 1)))
    assert (images[0] - images[1]).abs().max() < 1e-8


@pytest.mark.parametrize("own", [VP(), SubVP(), VE(), EDM()], ids=kind)
def test_denoiser_under_another_kernel(own):
    ratios = torch.logspace(1.9, -1.9, 24, dtype=torch.float64).tolist()
    images = []
    for kernel in (VP(), SubVP(), VE(), EDM()):
        start = kernel.time_of_ratio(torch.tensor(ratios[0], dtype=torch.float64))
        x = kernel.sigma(start) * NoiseStream(range(5)).draw((1, 4, 4)).double()
        denoiser = UnderKernel(EmpiricalDenoiser(pictures(), own), kernel)
        images.append([*Heun(ratios=ratios).walk(Run(denoiser), x)][-1].x_s)
    spread = torch.stack(images).diff(dim=0).abs().max()
    assert spread < 1e-6


OF_DENOISERS = [name for name in SAMPLERS if not registry.load("samplers", name).consistency]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", OF_DENOISERS)
def test_empirical_optimum_gives_training_images(name, kernel):
    images = pictures()
    denoiser = EmpiricalDenoiser(images, registry.build("kernels", kernel))
    sampler = registry.build("samplers", name, final_denoise=True, **FEWER_STEPS.get(name, {}))
    drawn = sampler.sample(denoiser, NoiseStream(range(16)))
    distances = torch.cdist(drawn.flatten(1), to_float(images).double().flatten(1))
    assert distances.amin(1).max() < 1e-6
    assert len(distances.argmin(1).unique()) > 3


@pytest.mark.parametrize("sampler", [Ancestral(6), EDMStochastic(6), Heun(6), DPMSolver(6)], ids=kind)
def test_images_depend_on_their_seed_alone(sampler):
    denoiser, seeds = GaussianDenoiser(VP(), (3, 5, 5)), [*range(64)]
    together = sampler.sample(denoiser, NoiseStream(seeds))
    for size in (1, 7):
        starts = range(0, 64, size) if size > 1 else range(0, 64, 5)
        for i in starts:
            part = sampler.sample(denoiser, NoiseStream(seeds[i : i + size]))
            assert torch.equal(part, together[i : i + size]), f"batch of {size} from {i}"


ADAPTIVE = [RK45(), DPMSolver(method="adaptive"), DPMSolver(method="adaptive", order=2, algorithm="dpmsolver++")]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("sampler", ADAPTIVE, ids=kind)
def test_adaptive_steps_are_each_images_own(sampler, kernel):
    """The same bits alone and among 19 others, of which one is hard: its data are a hundred times as wide."""

    class Uneven(GaussianDenoiser):
        def denoise(self, x_t, t, labels=None):
            wide = GaussianDenoiser(self.kernel, self.image_shape, std=50.0)
            hard = (labels == 1).view(-1, 1, 1, 1)
            return torch.where(hard, wide.denoise(x_t, t), super().denoise(x_t, t))

    denoiser, labels = Uneven(registry.build("kernels", kernel), (3, 5, 5)), torch.arange(20) // 19
    together = sampler.sample(denoiser, NoiseStream(range(20)), labels)
    for part in ([0], [19], [3, 4, 5]):
        alone = sampler.sample(denoiser, NoiseStream(part), labels[part])
        assert torch.equal(alone, together[part]), f"images {part}"
    times = [
        [step.s.item() for step in sampler.trajectory(denoiser, NoiseStream([i]), labels[i : i + 1])] for i in (0, 19)
    ]
    assert times[0] != times[1], "the hard image takes the steps of the others"


@pytest.mark.parametrize(
    "sampler",
    [RK45(), *(DPMSolver(method="adaptive", order=order, rtol=1e-3, atol=1e-3) for order in (2, 3))],
    ids=kind,
)
def test_a_steered_adaptive_walk_goes_on_from_what_it_was_given(sampler):
    """Images moved on the way, by 0.5, end where the flow carries the moved ones."""
    denoiser = GaussianDenoiser(VP(), (1, 3, 3))
    for count, step in enumerate(walk := sampler.trajectory(denoiser, NoiseStream(range(4)))):
        if count == 2:
            step.x_s = step.x_s + 0.5
            moved, s = step.x_s, step.s
    del walk
    right = denoiser.transport(moved, s.flatten(), torch.tensor(VP().t_min, dtype=torch.float64))
    assert (step.x_s - right).abs().max() < 2e-3


@pytest.mark.parametrize("sampler", ADAPTIVE, ids=kind)
def test_images_that_are_not_finite_end_the_walk(sampler):
    class Broken(GaussianDenoiser):
        def denoise(self, x_t, t, labels=None):
            return torch.full_like(x_t, torch.nan)

    assert sampler.sample(Broken(VP()), NoiseStream(range(3))).isnan().all()


def test_steps_that_never_arrive_are_a_mistake():
    with pytest.raises(UserError, match="RK45: an image has not arrived after 7 steps"):
        list(attempts("RK45", 7))


@pytest.mark.parametrize("name", SAMPLERS)
def test_clipped_images_are_what_a_clipped_denoiser_gives(name):
    class Clipped(GaussianDenoiser):
        def denoise(self, x_t, t, labels=None):
            return super().denoise(x_t, t).clamp(-1, 1)

    for kernel in (VP(), EDM()):
        drawn = registry.build("samplers", name, clip=True).sample(
            GaussianDenoiser(kernel, std=2.0), NoiseStream(range(4))
        )
        right = registry.build("samplers", name).sample(Clipped(kernel, std=2.0), NoiseStream(range(4)))
        assert torch.equal(drawn, right)


def test_no_churn_is_heun_and_no_eta_is_ddim():
    denoiser, stream = EmpiricalDenoiser(pictures(), EDM()), lambda: NoiseStream(range(5))
    for order, plain in ((2, Heun(18)), (1, Euler(18))):
        quiet = EDMStochastic(18, churn=0, order=order).sample(denoiser, stream())
        assert torch.equal(quiet, plain.sample(denoiser, stream()))
    ddim = Ancestral(30, eta=0).sample(denoiser, stream())
    assert (ddim - Euler(30).sample(denoiser, stream())).abs().max() < 1e-12


def test_euler_is_ddim_and_first_order_dpm_solver():
    """The step written out: x_s = alpha_s x_0 + sigma_s eps, under every kernel."""
    for name in KERNELS:
        kernel = registry.build("kernels", name)
        denoiser = EmpiricalDenoiser(pictures(), kernel)
        sampler = Euler(10, "log_snr", final_denoise=False)
        times = sampler.times(kernel)
        x = NoiseStream(range(5)).draw((1, 4, 4)).double() * kernel.prior_scale
        for t, s in pairwise(times):
            x_0, eps = denoiser.denoise(x, t), denoiser.eps(x, t)
            x = kernel.alpha(s) * x_0 + kernel.sigma(s) * eps
        got = sampler.sample(denoiser, NoiseStream(range(5)))
        assert (got - x).abs().max() < 1e-10 * kernel.prior_scale
        for algorithm in ("dpmsolver", "dpmsolver++"):
            solver = DPMSolver(10, order=1, algorithm=algorithm)
            assert (solver.sample(denoiser, NoiseStream(range(5))) - x).abs().max() < 1e-9 * kernel.prior_scale


def test_ancestral_draws_from_the_forward_posterior():
    """Mean and variance of one step against Gaussian conditioning, computed from the joint covariance."""
    kernel = VP()
    t, s = torch.tensor([0.6, 0.35], dtype=torch.float64)
    (alpha_t, alpha_s), (sigma_t, sigma_s) = (f(torch.stack([t, s])).tolist() for f in (kernel.alpha, kernel.sigma))
    x_0, x_t = 0.4, 0.9
    through = alpha_t / alpha_s
    gain = through * sigma_s**2 / sigma_t**2
    mean = alpha_s * x_0 + gain * (x_t - alpha_t * x_0)
    variance = sigma_s**2 - gain * through * sigma_s**2

    class Known(GaussianDenoiser):
        def denoise(self, x_t, t, labels=None):
            return torch.full_like(x_t, x_0)

    run = Run(Known(kernel, (1, 32, 32)), None, NoiseStream(range(40)))
    state = torch.full((40, 1, 32, 32), x_t, dtype=torch.float64)
    _, drawn = Ancestral().step(run, state, t, s)
    assert abs(drawn.mean().item() - mean) < 4 * (variance / drawn.numel()) ** 0.5
    assert abs(drawn.var().item() / variance - 1) < 4 * (2 / drawn.numel()) ** 0.5
