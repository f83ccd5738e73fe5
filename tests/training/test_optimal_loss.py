"""The optimal training loss against closed forms, and as a curve beside the training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from repro import registry
from repro.checkpoints.native import read_checkpoint
from repro.data.digits import Digits
from repro.data.mixture import LowRankMixture
from repro.denoisers import EmpiricalDenoiser, LowRankMixtureDenoiser, NetworkDenoiser
from repro.errors import UserError
from repro.images import to_float
from repro.kernels import EDM, VP
from repro.networks.mlp import MLP
from repro.noise import draw_noise
from repro.parameterizations import X0, EDMPreconditioning
from repro.samplers.heun import Heun
from repro.times import LogNormalTimes
from repro.training.base import seed_step
from repro.training.callbacks import OptimalLoss
from repro.training.diffusion import Diffusion
from repro.training.optimal_loss import losses_by_level, optimal_loss, optimum_of
from repro.training.trainer import Trainer

PARAMETERIZATIONS = registry.names("parameterizations")

FACTOR = {
    "Eps": lambda a, s: (a / s) ** 2,
    "X0": lambda a, s: 1.0,
    "V": lambda a, s: ((a**2 + s**2) / s) ** 2,
    "Velocity": lambda a, s: (a / s + 1) ** 2,
    "Score": lambda a, s: (a / s) ** 2,
    "EDMPreconditioning": lambda a, s: ((s / a) ** 2 + 0.25) / (s / a * 0.5) ** 2,
}
"""Loss of a parameterisation over the squared error of the clean image, by hand."""


@pytest.mark.parametrize("name", sorted(FACTOR))
@pytest.mark.parametrize("kernel", ["VP", "EDM", "Flow"])
def test_one_image_has_optimal_loss_zero(kernel, name):
    kernel, image = registry.build("kernels", kernel), torch.randint(0, 256, (1, 3, 4, 4), dtype=torch.uint8)
    x_0 = to_float(image).expand(9, -1, -1, -1)
    t = kernel.time_of_ratio(torch.logspace(-2, 1.5, 9, dtype=torch.float64))
    losses = optimal_loss(
        EmpiricalDenoiser(image, kernel), registry.build("parameterizations", name), x_0, torch.randn_like(x_0), t
    )
    assert losses.max() < 1e-20


@pytest.mark.parametrize("name", sorted(FACTOR))
@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
def test_two_images_of_one_pixel_by_quadrature(ratio, name):
    """The images are -1 and 1, so the optimum is tanh(x / r^2); its loss is one integral over the noise."""
    kernel = VP()
    t = kernel.time_of_ratio(torch.tensor(ratio, dtype=torch.float64))
    alpha, sigma = kernel.alpha(t).item(), kernel.sigma(t).item()
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    grid = np.linspace(-12, 12, 40_001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi) * (grid[1] - grid[0])
    right = FACTOR[name](alpha, sigma) * (density * (np.tanh((1 + ratio * grid) / ratio**2) - 1) ** 2).sum()
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    given = registry.build("parameterizations", name)
    for x_0 in (-1.0, 1.0):
        eps = torch.from_numpy(nodes).view(-1, 1, 1, 1)
        losses = optimal_loss(EmpiricalDenoiser(images, kernel), given, torch.full_like(eps, x_0), eps, t)
        ours = (losses.numpy() * weights).sum() / weights.sum()
        assert ours == pytest.approx(right, rel=2e-3 if ratio < 1 else 1e-6)


@pytest.mark.parametrize("name", PARAMETERIZATIONS)
def test_a_network_that_answers_like_the_optimum_has_its_loss(name):
    """The training loss of ``Diffusion`` and the optimum's agree on what a loss is, whatever the network predicts."""
    kernel, given = EDM(), registry.build("parameterizations", name)
    images = torch.randint(0, 256, (6, 1, 3, 3), dtype=torch.uint8)
    optimum = EmpiricalDenoiser(images, kernel)
    x_0, t = to_float(images).double(), torch.linspace(0.2, 3, 6, dtype=torch.float64)
    eps = torch.randn_like(x_0)
    alpha, sigma = optimum.scales(x_0, t)
    x_t = alpha * x_0 + sigma * eps
    clean = optimum.denoise(x_t, t)

    class Answers(torch.nn.Module):
        image_shape, num_classes = (1, 3, 3), 0

        def forward(self, x, level, labels=None):
            return given.target(clean, (x_t - alpha * clean) / sigma, alpha, sigma)

    trained = Diffusion.loss_at(NetworkDenoiser(Answers(), kernel, given), x_0, eps, t)
    torch.testing.assert_close(optimal_loss(optimum, given, x_0, eps, t), trained, rtol=1e-9, atol=1e-12)


def test_it_is_the_smallest_loss_of_the_training_set_and_not_of_the_distribution():
    """Below the loss of the true denoiser of the distribution: that is what memorising buys."""
    data, t = LowRankMixture(rank=4, subset=50), torch.tensor(0.15)
    optimum, x_0 = EmpiricalDenoiser(data.images(), EDM()), data.images()
    eps = draw_noise(range(50), x_0.shape[1:])
    least = optimal_loss(optimum, X0(), x_0, eps, t).mean()
    truth = optimal_loss(LowRankMixtureDenoiser(EDM(), rank=4), X0(), x_0, eps, t).mean()
    assert least < 0.2 * truth


def small(**settings):
    torch.manual_seed(0)
    network = MLP(8, 1, settings.pop("num_classes", 0), width=16, depth=1)
    return Diffusion(network, EDM(), EDMPreconditioning(), Heun(4), LogNormalTimes(), lr=1e-2, **settings)


def test_optimum_of_mirrored_and_labelled_data():
    data = Digits(subset=20, horizontal_flip=True)
    optimum = optimum_of(small(num_classes=10), data)
    assert len(optimum) == 40
    assert optimum.num_classes == int(data.labels().max()) + 1
    both = {image.numpy().tobytes() for image in torch.cat([data.images(), data.images().flip(-1)])}
    assert {row.numpy().tobytes() for row in optimum.stored} == both
    assert optimum_of(small(), Digits(subset=20)).labels is None


def test_levels_are_means_of_the_two_losses():
    module, data = small(), Digits(subset=30)
    optimum = optimum_of(module, data)
    found = list(losses_by_level(module, optimum, data, levels=3, images=10))
    assert [level.ratio for level in found] == sorted(level.ratio for level in found)
    x_0, eps = to_float(data.images()[:10]), draw_noise(range(10), (1, 8, 8))
    for level in found:
        t = torch.tensor(level.ratio)
        right = optimal_loss(optimum, EDMPreconditioning(), x_0, eps, t).mean().item()
        assert level.optimal == pytest.approx(right, rel=1e-4, abs=1e-9)
        trained = module.loss_at(module.average, x_0, eps, t).mean().item()
        assert level.trained == pytest.approx(trained, rel=1e-4)


def fitted(folder, callbacks, **settings):
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(max_steps=6, default_root_dir=folder, log_every_n_steps=2, callbacks=callbacks, **quiet)
    trainer.fit(small(**settings), datamodule=Digits(batch_size=8, subset=12))
    return read_checkpoint(folder)["state_dict"]


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def test_the_callback_logs_the_optimum_at_the_draws_of_the_step_and_changes_nothing(tmp_path):
    with_it = fitted(tmp_path / "with", [OptimalLoss(levels=2, images=5)])
    without = fitted(tmp_path / "without", [])
    assert all(torch.equal(with_it[key], without[key]) for key in without)
    logged = scalars(tmp_path / "with")
    for step in (1, 3, 5):
        module, data = small(), Digits(batch_size=8, subset=12)
        images, _ = data.stream().batches[8 * step]
        seed_step(0, 8 * step, 0)
        x_0 = to_float(images)
        t = LogNormalTimes().draw(8, EDM(), x_0.device)
        right = optimal_loss(optimum_of(module, data), EDMPreconditioning(), x_0, torch.randn_like(x_0), t).mean()
        assert logged["train/optimal_loss"][step] == pytest.approx(right.item(), rel=1e-5)
        excess = logged["train/loss"][step] - logged["train/optimal_loss"][step]
        assert logged["train/excess_loss"][step] == pytest.approx(excess, rel=1e-4)
    levels = [tag for tag in logged if tag.startswith("levels/")]
    assert len(levels) == 4
    assert all(list(logged[tag]) == [6] for tag in levels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": -1}, "levels of OptimalLoss is -1"),
        ({"every_n_steps": 0}, "every_n_steps of OptimalLoss is 0"),
        ({"images": 0}, "images of OptimalLoss is 0"),
    ],
)
def test_mistakes(arguments, message):
    with pytest.raises(UserError, match=message):
        OptimalLoss(**arguments)


def test_a_model_without_a_known_optimum_is_refused():
    vae = registry.load("modules", "VAE")
    with pytest.raises(UserError, match=r"OptimalLoss knows the optimum of Diffusion .* not of VAE"):
        OptimalLoss().on_train_start(None, vae.__new__(vae))
