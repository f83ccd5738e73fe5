"""Fine-tuning: a trained model goes on learning from other images, with all of its parameters or a chosen few."""

from __future__ import annotations

from typing import Any, ClassVar

from repro.checkpoints.weights import load_weights
from repro.kernels import Kernel
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.registry import settle
from repro.samplers.base import Sampler
from repro.times import TimeDistribution, UniformTimes
from repro.training.chosen import chosen_parameters, frozen_norms
from repro.training.diffusion import Diffusion
from repro.training.source import Source, check_data, taken_over

__all__ = ["FineTuning"]


class FineTuning(Diffusion):
    """Training as from scratch, but from the averaged weights of another model, and of chosen parameters only.

    The others are frozen: they have no gradient and no place in the optimiser, and they and their averages keep every
    bit; normalisations with running statistics that are not chosen work as in evaluation. Dropout works as in training
    everywhere.

    What is left out (None) is the starting model's, and stands in the record with what was found, so a checkpoint is
    rebuilt without the file that training started from.

    Args:
        start: Where training starts: a checkpoint, a run's folder, or an author-released file.
        parameters: What is trained: ``attention`` (the network's attention layers), ``all``, or shell globs on the
            names of the network's parameters.
        network: A network of the same parameters with other options (dropout, for example), or None.
        kernel: The perturbation kernel, or None.
        parameterization: What the network's output means, or None.
        sampler: How images are drawn, or None.
        times: Distribution of the training times, or None; uniform where the starting model does not say.
        **training: As for :class:`~repro.training.diffusion.DenoiserModule`.

    Attributes:
        takes_over_from: Name of the argument that says whose network is trained.
        started: Whether the weights are the start's, or of later.

    Raises:
        UserError: no such file, one that holds no network that denoises, parameters that the network does not have;
            as training begins, a network that the weights do not fit, or data of other images or classes.

    Source: Zhang et al. 2024, arXiv:2310.05264, section 4.3; attention only: Moon et al. 2022, *Fine-tuning diffusion
    models with limited data*.
    """

    takes_over_from: ClassVar[str] = "start"

    def __init__(
        self,
        start: str,
        parameters: list[str] | str = "attention",
        network: Network | None = None,
        kernel: Kernel | None = None,
        parameterization: Parameterization | None = None,
        sampler: Sampler | None = None,
        times: TimeDistribution | None = None,
        **training: Any,
    ) -> None:
        source = Source(start, "start")
        sampler, times = sampler or source.sampler, times or source.times or UniformTimes()
        trained = taken_over(source, self, network, kernel, parameterization)
        super().__init__(trained.network, trained.kernel, trained.parameterization, sampler, times, **training)
        settle(self, sampler=sampler, times=times)
        self.start, self.started = start, network is None
        chosen = chosen_parameters(trained.network, parameters)
        for name, parameter in trained.network.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.train()

    def train(self, mode: bool = True) -> FineTuning:
        """Puts what is trained in training mode; frozen statistics stay as they are."""
        super().train(mode)
        for norm in frozen_norms(self.trained):
            norm.eval()
        return self

    def setup(self, stage: str) -> None:
        """Checks the data before training begins."""
        super().setup(stage)
        if stage == "fit":
            check_data("start", self, self.trainer.datamodule)

    def on_fit_start(self) -> None:
        """Gives a network that was named the start's weights, unless training goes on."""
        super().on_fit_start()
        if not self.started:
            weights = Source(self.start, "start").with_network("network").network.state_dict()
            for denoiser in (self.trained, self.average):
                load_weights(denoiser.network, weights, f"start {self.start}")
            self.started = True

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes progress back; the weights are there."""
        super().on_load_checkpoint(checkpoint)
        self.started = True
