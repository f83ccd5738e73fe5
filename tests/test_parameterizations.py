"""Parameterisations: laws, published formulas, equal losses, mistakes."""

import json
import math

import pytest
import torch

from repro import records, registry
from repro.errors import UserError
from repro.kernels import EDM, VE, VP, DiscreteVP
from repro.parameterizations import ConsistencyPreconditioning, EDMPreconditioning, Eps, Parameterization, Score
from repro.testing.parameterizations import check_parameterization

NAMES = registry.names("parameterizations")
KERNELS = registry.names("kernels")
GENERATOR = torch.Generator().manual_seed(0)
X_0, NOISE, OUTPUT = torch.randn(3, 9, 2, 4, 4, generator=GENERATOR, dtype=torch.float64)


def scales(kernel, count=9):
    t = torch.linspace(kernel.t_min, kernel.t_max, count, dtype=torch.float64)
    return t, kernel.alpha(t)[:, None, None, None], kernel.sigma(t)[:, None, None, None]


def close(ours, right, tolerance=1e-11):
    torch.testing.assert_close(ours, right, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_laws(name, kernel):
    check_parameterization(registry.build("parameterizations", name), registry.build("kernels", kernel))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", NAMES)
def test_targets_are_the_clean_image_in_float64(name, kernel):
    free_everywhere = {"ratio_min": 1e-4} if name == "ConsistencyPreconditioning" else {}
    kernel, meaning = registry.build("kernels", kernel), registry.build("parameterizations", name, **free_everywhere)
    _, alpha, sigma = scales(kernel)
    x_t = alpha * X_0 + sigma * NOISE
    back = meaning.to_x_0(meaning.target(X_0, NOISE, alpha, sigma), x_t, alpha, sigma)
    assert back.dtype == torch.float64
    assert ((back - X_0).abs() / (1 + sigma / alpha)).max() < 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if "Preconditioning" not in name])
def test_unit_input(name):
    meaning = registry.build("parameterizations", name, unit_input=True)
    _, alpha, sigma = scales(EDM())
    close(meaning.input_scale(alpha, sigma) ** 2 * (alpha**2 + sigma**2), torch.ones_like(alpha))
    assert registry.build("parameterizations", name).input_scale(alpha, sigma) == 1


def test_every_loss_is_one_loss():
    """Squared errors of the network's output are the same error of the image, in each one's own weight."""
    _, alpha, sigma = scales(VP())
    x_t = alpha * X_0 + sigma * NOISE
    ratio = sigma / alpha
    weights = {
        "Eps": 1 / ratio**2,
        "Score": 1 / ratio**2,
        "X0": torch.ones_like(ratio),
        "V": 1 / sigma**2,
        "Velocity": ((alpha + sigma) / sigma) ** 2,
        "EDMPreconditioning": (ratio**2 + 0.25) / (0.5 * ratio) ** 2,
        "ConsistencyPreconditioning": (ratio**2 + 0.25) / (0.5 * ratio) ** 2,
    }
    assert set(weights) == {name for name in NAMES if registry.load("parameterizations", name).outputs == 1}
    for name, weight in weights.items():
        meaning = registry.build("parameterizations", name)
        error = (OUTPUT - meaning.target(X_0, NOISE, alpha, sigma)) ** 2 * meaning.loss_weight(alpha, sigma)
        image_error = (meaning.to_x_0(OUTPUT, x_t, alpha, sigma) - X_0) ** 2
        close(error / (weight * image_error), torch.ones_like(error), 1e-8)


def test_edm_table_1():
    """c_skip, c_out, c_in, c_noise and the loss of EDM, in its own notation: D(y + n; sigma) for alpha = 1."""
    meaning, sigma = EDMPreconditioning(0.5), torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)[:, None, None, None]
    y, n, output, one = X_0[:3], NOISE[:3] * sigma, OUTPUT[:3], torch.ones_like(sigma)
    skip = 0.25 / (sigma**2 + 0.25)
    out = sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    denoised = skip * (y + n) + out * output
    close(meaning.to_x_0(output, y + n, one, sigma), denoised)
    close(meaning.input_scale(one, sigma), 1 / (sigma**2 + 0.25).sqrt())
    close(meaning.noise_level(sigma, sigma.log()), sigma.log() / 4)
    weight = (sigma**2 + 0.25) / (sigma * 0.5) ** 2
    close((output - meaning.target(y, NOISE[:3], one, sigma)) ** 2, weight * (denoised - y) ** 2, 1e-8)


def test_consistency_scalings_as_published():
    """Song et al. 2023, appendix C, in its own notation: f(x, t) for alpha = 1 and sigma = t."""
    meaning = ConsistencyPreconditioning(0.4, ratio_min=0.01)
    t = torch.tensor([0.01, 0.02, 0.5, 80.0], dtype=torch.float64)[:, None, None, None]
    x, output, one = X_0[:4] * (1 + t), OUTPUT[:4], torch.ones_like(t)
    skip = 0.16 / ((t - 0.01) ** 2 + 0.16)
    out = 0.4 * (t - 0.01) / (t**2 + 0.16).sqrt()
    close(meaning.to_x_0(output, x, one, t), skip * x + out * output)
    close(meaning.input_scale(one, t), 1 / (t**2 + 0.16).sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kernel", [EDM(), EDM(0.0123, 5.0), VE(), VP()], ids=lambda kernel: type(kernel).__name__)
def test_consistency_function_is_the_identity_at_the_smallest_time(kernel, dtype):
    exact = torch.tensor(kernel.t_min, dtype=torch.float64)
    meaning = ConsistencyPreconditioning(ratio_min=kernel.ratio(exact).item())
    t = exact if type(kernel) is not EDM else exact.to(dtype)
    alpha, sigma = (scale(t).expand(9, 1, 1, 1) for scale in (kernel.alpha, kernel.sigma))
    x, output = X_0.to(dtype), 1e4 * OUTPUT.to(dtype)
    given = meaning.to_x_0(output, x, alpha, sigma).to(dtype)
    assert torch.equal(given, (x * (1 / alpha)).to(dtype))
    assert (meaning.to_x_0(output, x, alpha, 1.5 * sigma) - x).abs().max() > 1


def test_edm_input_and_target_have_unit_variance():
    generator = torch.Generator().manual_seed(1)
    for kernel in (EDM(), VP()):
        _, alpha, sigma = scales(kernel, 5)
        x_0, noise = torch.randn(2, 5, 1, 200, 200, generator=generator, dtype=torch.float64)
        x_0 = x_0 * 0.5
        meaning = EDMPreconditioning(0.5)
        for value in (
            meaning.input_scale(alpha, sigma) * (alpha * x_0 + sigma * noise),
            meaning.target(x_0, noise, alpha, sigma),
        ):
            assert ((value.flatten(1).var(1) - 1).abs() < 6 * (2 / 40000) ** 0.5).all()


def test_score_is_the_gradient_of_the_conditional_density():
    _, alpha, sigma = scales(VP())
    x_t = (alpha * X_0 + sigma * NOISE).requires_grad_()
    log_density = -(((x_t - alpha * X_0) / sigma) ** 2).sum() / 2
    (gradient,) = torch.autograd.grad(log_density, x_t)
    close(Score().target(X_0, NOISE, alpha, sigma), gradient)


def test_what_the_network_is_told():
    kernel = DiscreteVP()
    t = torch.tensor([0.001, 0.5, 1.0], dtype=torch.float64)
    log_ratio = -kernel.log_snr(t)
    close(Eps().noise_level(t, log_ratio), 999 * t)
    close(Eps(condition_scale=1000, condition_shift=-1).noise_level(t, log_ratio), torch.tensor([0, 499, 999]).double())
    close(Eps("log_ratio").noise_level(t, log_ratio), kernel.ratio(t).log() / 4)
    close(Eps("log_ratio", 1.0, math.log(0.5)).noise_level(t, log_ratio), (kernel.ratio(t) / 2).log())


class HalfWrong(Eps):
    def target(self, x_0, eps, alpha, sigma):
        return -eps


class Flat(Eps):
    def noise_level(self, t, log_ratio):
        return t * 0


@pytest.mark.parametrize(("broken", "message"), [(HalfWrong, "to_x_0"), (Flat, "monotone")])
def test_laws_catch_mistakes(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_parameterization(broken(), VP())


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("Eps", {"condition": "tme"}, "condition"),
        ("EDMPreconditioning", {"sigma_data": 0.0}, "sigma_data is 0"),
        ("EDMPreconditioning", {"sigma": 1.0}, "did you mean 'sigma_data'"),
        ("ConsistencyPreconditioning", {"ratio_min": 0.0}, "ratio_min is 0"),
    ],
)
def test_mistakes(name, arguments, message):
    with pytest.raises(UserError, match=message):
        registry.build("parameterizations", name, **arguments)


@pytest.mark.parametrize("name", NAMES)
def test_rebuilt_from_its_record(name):
    arguments = {"sigma_data": 0.3} if "Preconditioning" in name else {"condition": "log_ratio", "unit_input": True}
    meaning = registry.build("parameterizations", name, **arguments)
    again = records.rebuild(json.loads(json.dumps(records.record_of(meaning))))
    assert isinstance(again, Parameterization)
    _, alpha, sigma = scales(VP())
    assert torch.equal(again.to_x_0(OUTPUT, X_0, alpha, sigma), meaning.to_x_0(OUTPUT, X_0, alpha, sigma))
    assert torch.equal(again.input_scale(alpha, sigma), meaning.input_scale(alpha, sigma))


def test_image_and_noise_count_where_they_are_surer():
    """An output that is right in one half only is as wrong as the other half's weight."""
    _, alpha, sigma = scales(VP())
    x_t, meaning = alpha * X_0 + sigma * NOISE, registry.build("parameterizations", "X0AndEps")
    for wrong, weight in ((torch.cat([X_0 + 1, NOISE], dim=1), sigma**2), (torch.cat([X_0, NOISE + 1], dim=1), None)):
        error = meaning.to_x_0(wrong, x_t, alpha, sigma) - X_0
        expected = -alpha * sigma if weight is None else weight
        close(error, expected.expand_as(error), 1e-8)
