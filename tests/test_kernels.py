"""Kernels: laws for everything registered, closed forms, tables of other implementations, mistakes."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from repro import records, registry
from repro.errors import UserError
from repro.kernels import EDM, VE, VP, Cosine, DiscreteVP, Flow, Kernel, SubVP
from repro.testing.kernels import check_kernel

ORACLES = Path(__file__).parent / "oracles" / "samplers"
T = torch.linspace(0.01, 0.99, 37, dtype=torch.float64)


@pytest.mark.parametrize("name", registry.names("kernels"))
def test_laws(name):
    check_kernel(registry.build("kernels", name))


@pytest.mark.parametrize(
    "kernel",
    [
        VP(rate_min=0.5, rate_max=8.0, t_min=1e-5),
        SubVP(rate_min=0.2, rate_max=15.0),
        DiscreteVP("cosine"),
        DiscreteVP(steps=50),
        DiscreteVP("cosine", steps=4000, log_snr_min=-3.0),
        VE(sigma_min=0.02, sigma_max=348.0),
        EDM(sigma_min=0.01, sigma_max=300.0),
        Cosine(offset=0.0),
        Cosine(offset=0.05, t_max=0.98),
        Flow(t_min=1e-5),
    ],
    ids=lambda kernel: type(kernel).__name__,
)
def test_laws_of_other_settings(kernel):
    check_kernel(kernel)


def close(ours, right, tolerance=1e-12):
    torch.testing.assert_close(ours, right, rtol=tolerance, atol=tolerance)


def test_vp_closed_forms():
    kernel, low, high = VP(0.2, 12.0), 0.2, 12.0
    rate = low + (high - low) * T
    integral = low * T + (high - low) * T**2 / 2
    close(kernel.alpha(T) ** 2, (-integral).exp())
    close(kernel.alpha(T) ** 2 + kernel.sigma(T) ** 2, torch.ones_like(T))
    close(kernel.log_alpha_dot(T), -rate / 2)
    close(kernel.sigma_dot(T), rate * (-integral).exp() / (2 * kernel.sigma(T)), 1e-10)
    sub = SubVP(0.2, 12.0)
    close(sub.alpha(T), kernel.alpha(T))
    close(sub.sigma(T), 1 - (-integral).exp())
    close(sub.sigma_dot(T), rate * (-integral).exp(), 1e-10)


def test_other_closed_forms():
    ve = VE(0.02, 100.0)
    close(ve.sigma(T), 0.02 ** (1 - T) * 100**T)
    close(ve.sigma_dot(T), ve.sigma(T) * math.log(5000), 1e-10)
    edm = EDM()
    close(edm.ratio(T), T)
    close(edm.sigma_dot(T), torch.ones_like(T))
    cosine, s = Cosine(), 0.008
    level = ((T + s) / (1 + s) * math.pi / 2).cos() ** 2 / math.cos(s / (1 + s) * math.pi / 2) ** 2
    close(cosine.alpha(T) ** 2, level)
    close(cosine.sigma(T) ** 2, 1 - level, 1e-11)
    flow = Flow()
    close(flow.alpha(T), 1 - T)
    close(flow.log_alpha_dot(T), -1 / (1 - T))
    for kernel in (ve, edm):
        close(kernel.log_alpha_dot(T), torch.zeros_like(T))


def test_near_the_data_nothing_cancels():
    """Small times keep full relative precision, in float32 too."""
    t = torch.logspace(-5, -2, 20, dtype=torch.float64)
    for kernel in (VP(), SubVP(), Cosine(), Flow()):
        assert ((kernel.sigma(t.float()).double() / kernel.sigma(t) - 1).abs() < 2e-3).all()
    variance = VP().sigma(t) ** 2
    integral = 0.1 * t + 19.9 * t**2 / 2
    close(variance / (integral - integral**2 / 2 + integral**3 / 6), torch.ones_like(t), 1e-7)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_discrete_table_is_ddpm(schedule):
    """Cumulative products written out as a loop; cosine as in improved DDPM."""
    steps, product, table = 1000, 1.0, []

    def level(i):
        return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    for i in range(steps):
        beta = 1e-4 + (0.02 - 1e-4) * i / (steps - 1)
        if schedule == "cosine":
            beta = min(1 - level(i + 1) / level(i), 0.999)
        product *= 1 - beta
        table.append(product)
    table = torch.tensor(table, dtype=torch.float64)
    kernel = DiscreteVP(schedule, log_snr_min=-math.inf)
    t = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    close(kernel.alpha(t) ** 2, table, 1e-10)
    between = (t[:-1] + t[1:]) / 2
    close(kernel.log_alpha(between), (kernel.log_alpha(t)[:-1] + kernel.log_alpha(t)[1:]) / 2)
    kept = DiscreteVP(schedule)
    assert kept.steps == int((0.5 * (table / (1 - table)).log() >= -5.1).sum())
    assert kept.t_min == 1 / kept.steps


@pytest.mark.parametrize("schedule", ["linear", "ddpm1000", "cosine1000"])
def test_tables_of_dpm_solver(schedule):
    table = load_file(ORACLES / "dpm_solver" / "io.safetensors")
    kernel = {"linear": VP(), "ddpm1000": DiscreteVP(), "cosine1000": DiscreteVP("cosine")}[schedule]
    t = table["t_grid"]
    close(kernel.log_alpha(t), table[f"{schedule}_log_alpha"], 1e-11)
    close(kernel.sigma(t), table[f"{schedule}_sigma"], 1e-11)
    close(kernel.log_snr(t), table[f"{schedule}_lambda"], 1e-10)
    close(kernel.time_of_log_snr(table[f"{schedule}_lambda"]), table[f"{schedule}_inverse_lambda"], 1e-10)
    if schedule != "linear":
        assert kernel.steps == table[f"{schedule}_total_N"].item()


@pytest.mark.parametrize(("name", "kernel"), [("vp", VP()), ("subvp", SubVP()), ("ve", VE())])
def test_tables_of_score_sde(name, kernel):
    table = load_file(ORACLES / "score_sde_marginals" / "io.safetensors")
    t = table["t"].double()
    close(kernel.alpha(t), table[f"{name}_mean_coef"])
    close(kernel.sigma(t), table[f"{name}_std"], 1e-10)
    close(kernel.log_alpha_dot(t), table[f"{name}_drift_coef"], 1e-10)
    sigma = kernel.sigma(t)
    diffusion = (2 * sigma * (kernel.sigma_dot(t) - kernel.log_alpha_dot(t) * sigma)).sqrt()
    close(diffusion, table[f"{name}_diffusion"], 1e-9)


class Plain(Kernel):
    """What a third party writes: two functions and three numbers."""

    t_min, t_max = 1e-3, 1.0

    def log_alpha(self, t):
        return VP().log_alpha(t)

    def sigma(self, t):
        return VP().sigma(t)


def test_inverse_by_bisection():
    check_kernel(Plain())
    ratio = VP().ratio(torch.logspace(-7, 0, 30, dtype=torch.float64))
    close(Plain().time_of_ratio(ratio) / VP().time_of_ratio(ratio), torch.ones_like(ratio), 1e-9)


class WrongInverse(VP):
    def time_of_ratio(self, ratio):
        return super().time_of_ratio(ratio) * (1 + 1e-6)


class WrongDerivative(VP):
    def sigma_dot(self, t):
        return super().sigma_dot(t) * 1.001


class WrongPrior(VE):
    def __init__(self):
        super().__init__()
        self.prior_scale = 1.0


class FallingRatio(EDM):
    def sigma(self, t):
        return t * (1 + 0.5 * torch.sin(3 * t))

    def ratio(self, t):
        return self.sigma(t)


@pytest.mark.parametrize(
    ("kernel", "message"),
    [(WrongInverse, "time_of_ratio"), (WrongDerivative, "sigma_dot"), (WrongPrior, "prior"), (FallingRatio, "grow")],
)
def test_laws_catch_mistakes(kernel, message):
    with pytest.raises(AssertionError, match=message):
        check_kernel(kernel())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("VP", {"rate_min": 0.0}, "VP needs 0 < rate_min < rate_max"),
        ("VP", {"rate_min": 3.0, "rate_max": 2.0}, "rate_min=3 and rate_max=2"),
        ("VP", {"t_min": 0.0}, "VP needs 0 < t_min < t_max"),
        ("SubVP", {"rate_max": -1.0}, "rate_max=-1"),
        ("DiscreteVP", {"steps": 20}, "at least 21 steps for the linear schedule"),
        ("DiscreteVP", {"steps": 1, "schedule": "cosine"}, "at least 2 steps"),
        ("DiscreteVP", {"schedule": "linaer"}, "did you mean 'linear'"),
        ("DiscreteVP", {"log_snr_min": 50.0}, "keeps fewer than 2 steps"),
        ("VE", {"sigma_min": 60.0}, "0 < sigma_min < sigma_max"),
        ("VE", {"t_min": 1.5}, "t_min=1.5"),
        ("EDM", {"sigma_min": 90.0}, "t_min=90 and t_max=80"),
        ("Cosine", {"offset": -0.1}, "offset >= 0"),
        ("Cosine", {"t_max": 1.0}, "<= 0.9999"),
        ("Flow", {"t_min": 0.7}, "Flow needs"),
        ("VP", {"rate": 3.0}, "did you mean 'rate_m"),
    ],
)
def test_mistakes(name, arguments, message):
    with pytest.raises(UserError) as caught:
        registry.build("kernels", name, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", registry.names("kernels"))
def test_rebuilt_from_its_record(name):
    arguments = {"VP": {"rate_max": 7.0}, "VE": {"sigma_max": 7.0}, "DiscreteVP": {"steps": 50}}.get(name, {})
    kernel = registry.build("kernels", name, **arguments)
    again = records.rebuild(json.loads(json.dumps(records.record_of(kernel))))
    t = torch.linspace(kernel.t_min, kernel.t_max, 9, dtype=torch.float64)
    assert torch.equal(again.ratio(t), kernel.ratio(t))
    assert (again.t_min, again.t_max, again.prior_scale) == (kernel.t_min, kernel.t_max, kernel.prior_scale)
