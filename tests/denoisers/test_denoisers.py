"""Denoisers: a network under a kernel and a parameterisation, dtypes, labels, and change of kernel."""

import json

import pytest
import torch
from torch import nn

from repro import records, registry
from repro.denoisers import (
    EmpiricalDenoiser,
    FittedGaussianDenoiser,
    GaussianDenoiser,
    GuidedDenoiser,
    LowRankMixtureDenoiser,
    NetworkDenoiser,
    UnderKernel,
)
from repro.errors import UserError
from repro.kernels import EDM, VE, VP, Flow
from repro.parameterizations import X0, EDMPreconditioning, Eps, V
from repro.testing.denoisers import check_denoiser, check_device

KERNELS = registry.names("kernels")
MEANINGS = registry.names("parameterizations")


class Probe(nn.Module):
    """Answers with a fixed function, and remembers what it was shown."""

    image_shape, num_classes = (2, 3, 3), 4

    def __init__(self, extra=0):
        super().__init__()
        self.weight, self.extra = nn.Parameter(torch.tensor(0.3)), extra

    def forward(self, x, noise_level, labels=None):
        self.shown = (x, noise_level, labels)
        answer = torch.tanh(self.weight * x) + noise_level[:, None, None, None].tanh() / 10
        return torch.cat([answer, answer[:, : self.extra] * 5], 1)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_laws_of_networks(meaning, kernel):
    denoiser = NetworkDenoiser(
        Probe().double(), registry.build("kernels", kernel), registry.build("parameterizations", meaning)
    )
    check_denoiser(denoiser, labels=torch.tensor([0, 1, 2, 3, 0]))


def test_laws_of_a_real_network():
    network = registry.build("networks", "MLP", image_size=4, channels=1, num_classes=3, width=16, depth=1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(0))
    denoiser = NetworkDenoiser(network, EDM(), EDMPreconditioning())
    check_denoiser(denoiser, labels=torch.tensor([0, 1, 2, 2, 0]), batch_tolerance=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_laws_of_formulas(kernel):
    kernel = registry.build("kernels", kernel)
    check_denoiser(GaussianDenoiser(kernel, mean=0.2))
    images = torch.randint(0, 256, (9, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    classes = torch.arange(9) % 3
    check_denoiser(EmpiricalDenoiser(images, kernel, chunk=4), batch_tolerance=1e-9)
    conditional = EmpiricalDenoiser(images, kernel, labels=classes, chunk=4)
    check_denoiser(conditional, labels=torch.tensor([0, 1, 2, 2, 0]), batch_tolerance=1e-9)
    check_denoiser(UnderKernel(GaussianDenoiser(EDM()), kernel))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("meaning", MEANINGS)
def test_a_network_on_an_accelerator_does_not_wait(meaning, kernel):
    def build():
        return NetworkDenoiser(Probe(), registry.build("kernels", kernel), registry.build("parameterizations", meaning))

    check_device(build)
    check_device(lambda: UnderKernel(GuidedDenoiser(build(), 2.0), VE()))


# Each kernel anew: its tables stay on the device where it was used.
SET = torch.randint(0, 256, (9, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
FORMULAS = {
    "GaussianDenoiser": (lambda kernel: GaussianDenoiser(kernel, mean=0.2), 0),
    "FittedGaussianDenoiser": (lambda kernel: FittedGaussianDenoiser(SET, kernel), 0),
    "LowRankMixtureDenoiser": (lambda kernel: LowRankMixtureDenoiser(kernel), 2),
    "EmpiricalDenoiser": (lambda kernel: EmpiricalDenoiser(SET, kernel), 1),
}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_on_an_accelerator_waits_as_often_as_stated(name, kernel):
    make, waits = FORMULAS[name]
    check_device(lambda: make(registry.build("kernels", kernel)), waits)


def test_every_denoiser_was_on_an_accelerator():
    assert {*FORMULAS, "NetworkDenoiser", "UnderKernel", "GuidedDenoiser"} == set(registry.names("denoisers"))


class LooksAtItsTimes(GaussianDenoiser):
    def denoise(self, x_t, t, labels=None):
        return super().denoise(x_t if x_t.isfinite().all() else x_t * 0, t)


class MeansOnTheHost(GaussianDenoiser):
    def denoise(self, x_t, t, labels=None):
        return super().denoise(x_t, t) + torch.zeros(self.image_shape)


def test_the_law_of_devices_notices():
    with pytest.raises(AssertionError, match=r"0 times are stated: .*item\(\)"):
        check_device(lambda: LooksAtItsTimes(VP()))
    with pytest.raises(AssertionError, match="left on the CPU"):
        check_device(lambda: MeansOnTheHost(VP()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_network_runs_in_its_own_dtype(dtype):
    network = Probe().to(dtype)
    denoiser = NetworkDenoiser(network, VP(), Eps())
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64)
    t, labels = torch.tensor([0.2, 0.7], dtype=torch.float64), torch.tensor([1, 2])
    x_0 = denoiser.denoise(x, t, labels)
    assert x_0.dtype == torch.float64
    precise = torch.float64 if dtype == torch.float64 else torch.float32
    assert [network.shown[0].dtype, network.shown[1].dtype] == [dtype, precise]
    assert torch.equal(network.shown[2], labels)
    torch.testing.assert_close(network.shown[1], (999 * t).to(precise))
    alpha, sigma = VP().alpha(t)[:, None, None, None], VP().sigma(t)[:, None, None, None]
    torch.testing.assert_close(x_0, (x - sigma * network(x.to(dtype), (999 * t).to(precise)).double()) / alpha)


def test_edm_network_is_shown_its_own_scale():
    network = Probe().double()
    denoiser = NetworkDenoiser(network, Flow(), EDMPreconditioning(0.5))
    x, t = torch.randn(3, 2, 3, 3, dtype=torch.float64), torch.tensor(0.25, dtype=torch.float64)
    x_0 = denoiser.denoise(x, t)
    ratio, y = 1 / 3, x / 0.75
    torch.testing.assert_close(network.shown[0], y / (ratio**2 + 0.25) ** 0.5)
    torch.testing.assert_close(network.shown[1], torch.tensor(ratio).double().log().expand(3) / 4)
    output = network(*network.shown)
    scale = ratio**2 + 0.25
    torch.testing.assert_close(x_0, 0.25 / scale * y + ratio * 0.5 / scale**0.5 * output)


def test_channels_of_a_variance_are_left_out():
    x, t = torch.randn(3, 2, 3, 3), torch.tensor(0.4)
    plain, doubled = (NetworkDenoiser(Probe(extra), VP(), Eps()) for extra in (0, 2))
    assert torch.equal(plain.denoise(x, t), doubled.denoise(x, t))


def test_noise_of_an_eps_network_is_its_output():
    """Not computed through x_0, where it would cancel at small times."""
    network = Probe().double()
    denoiser = NetworkDenoiser(network, VP(), Eps())
    x, t = torch.randn(3, 2, 3, 3, dtype=torch.float64), torch.tensor(1e-3, dtype=torch.float64)
    assert torch.equal(denoiser.eps(x, t), network(*network.shown))


@pytest.mark.parametrize("inner", [VP(), VE(), EDM(), Flow()], ids=lambda kernel: type(kernel).__name__)
def test_under_another_kernel(inner):
    generator = torch.Generator().manual_seed(2)
    images = torch.randint(0, 256, (6, 1, 3, 3), dtype=torch.uint8, generator=generator)
    direct = EmpiricalDenoiser(images, EDM())
    through = UnderKernel(UnderKernel(direct, inner), EDM())
    y = torch.randn(4, 1, 3, 3, generator=generator, dtype=torch.float64)
    for sigma in (0.02, 0.5, 30.0):
        t = torch.tensor(sigma, dtype=torch.float64)
        torch.testing.assert_close(through.denoise(y * sigma, t), direct.denoise(y * sigma, t), rtol=1e-7, atol=1e-8)
        each = through.denoise(y * sigma, t.expand(4))
        torch.testing.assert_close(each, direct.denoise(y * sigma, t), rtol=1e-7, atol=1e-8)


def test_network_without_a_shape():
    with pytest.raises(UserError, match="network Linear has no attribute image_shape"):
        NetworkDenoiser(nn.Linear(2, 2), VP(), X0())


def test_rebuilt_from_its_record():
    network = registry.build("networks", "MLP", image_size=4, channels=1, width=8, depth=1)
    denoiser = NetworkDenoiser(network, VP(rate_max=9.0), V(unit_input=True))
    again = records.rebuild(json.loads(json.dumps(records.record_of(denoiser))))
    again.load_state_dict(denoiser.state_dict())
    x, t = torch.randn(2, 1, 4, 4), torch.tensor(0.3)
    assert torch.equal(again.denoise(x, t), denoiser.denoise(x, t))
    assert sorted(again.state_dict()) == sorted(f"network.{key}" for key in network.state_dict())


class Careless(GaussianDenoiser):
    """Uses the mean of the batch."""

    def denoise(self, x_t, t, labels=None):
        return super().denoise(x_t, t, labels) + 1e-6 * x_t.mean()


class Cast(GaussianDenoiser):
    def denoise(self, x_t, t, labels=None):
        return super().denoise(x_t, t, labels).double()


@pytest.mark.parametrize(("broken", "message"), [(Careless, "batch mates"), (Cast, "float32")])
def test_laws_catch_mistakes(broken, message):
    with pytest.raises(AssertionError, match=message):
        check_denoiser(broken(VP()))
