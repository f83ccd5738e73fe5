"""Every training mode on an accelerator, rehearsed without one, and the rehearsal notices what is wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from modes import MODES, images, network, plain

from repro import registry
from repro.kernels import EDM
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.testing.training import check_training
from repro.training import Diffusion
from repro.training.callbacks import StepsBar

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    plain(folder, diffusion(), images())
    return str(folder / "plain.ckpt")


def diffusion(cls=Diffusion, **settings):
    return cls(network(), EDM(), EDMPreconditioning(), Heun(2), **settings)


@pytest.mark.parametrize("name", [each for each in registry.names("modules") if each in MODES])
def test_no_step_waits_and_nothing_is_left_on_the_host(name, start):
    check_training(lambda: registry.build("modules", name, **MODES[name](start)))


def test_clipped_gradients_and_several_batches_a_step_do_not_wait():
    check_training(diffusion, gradient_clip_val=1.0, accumulate_grad_batches=1)


class ReadsItsLoss(Diffusion):
    def loss(self, x_0, labels):
        loss = super().loss(x_0, labels)
        return loss if loss.mean().item() < 1e9 else 0 * loss


class ShowsItsLoss(Diffusion):
    """What Lightning shows in its own bar it reads in every step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("shown", loss, prog_bar=True)
        return loss


class LeavesWeights(Diffusion):
    def loss(self, x_0, labels):
        return super().loss(x_0, labels) * torch.ones(len(x_0))


class DrawsOnTheHost(Diffusion):
    def loss(self, x_0, labels):
        return super().loss(x_0 + torch.randn(x_0.shape).to(x_0), labels)


class LooksForBadGradients(Diffusion):
    def on_before_optimizer_step(self, optimizer):
        for parameter in self.trained.parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all()


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (ReadsItsLoss, r"item\(\) or tolist\(\)"),
        (ShowsItsLoss, r"item\(\) or tolist\(\)"),
        (LooksForBadGradients, r"item\(\) or tolist\(\)"),
        (LeavesWeights, r"left on the CPU"),
        (DrawsOnTheHost, "pageable memory"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_law_notices(cls, message):
    with pytest.raises(AssertionError, match=message):
        check_training(lambda: diffusion(cls))


def test_the_bar_reads_a_loss_once_where_it_was_logged():
    class Loss:
        reads = 0

        def __float__(self):
            self.reads += 1
            return self.reads / 2

    loss = Loss()
    trainer = SimpleNamespace(
        loggers=(), progress_bar_metrics={}, callback_metrics={"train/loss": loss, "train/lr": 0.1}, log_every_n_steps=4
    )
    bar, shown = StepsBar(), []
    for trainer.global_step in range(1, 10):
        shown.append(bar.get_metrics(trainer, None))
    assert shown == [{"train/loss": value} for value in (0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.5, 1.5)]
    assert loss.reads == 3
