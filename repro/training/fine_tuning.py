"""Fine-tuning: a trained model goes on learning from other images, with all of its parameters or a chosen few."""

from __future__ import annotations

from typing import Any, ClassVar

from repro.errors import UserError
from repro.kernels import Kernel
from repro.models.weights import load_weights
from repro.networks import Network
from repro.parameterizations import Parameterization
from repro.records import complete_record
from repro.samplers.base import Sampler
from repro.times import TimeDistribution, UniformTimes
from repro.training.base import Part
from repro.training.chosen import chosen_parameters, frozen_norms
from repro.training.diffusion import Diffusion
from repro.training.source import Source, check_data, taken_over

__all__ = ["FineTuning", "Start"]


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
        compile: Compile the network (``torch.compile``); state dicts keep their names.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Attributes:
        takes_over_from: Name of the argument that says whose network is trained.

    Raises:
        UserError: no such file, one that holds no network that denoises, parameters that the network does not have;
            as training begins, a network that the weights do not fit, or data of other images or classes.

    Source: Zhang et al. 2024, arXiv:2310.05264, section 4.3; attention only: Moon et al. 2022, *Fine-tuning diffusion
    models with limited data*.
    """

    takes_over_from: ClassVar[str | None] = "start"

    def __init__(
        self,
        start: str,
        parameters: list[str] | str = "attention",
        network: Network | None = None,
        kernel: Kernel | None = None,
        parameterization: Parameterization | None = None,
        sampler: Sampler | None = None,
        times: TimeDistribution | None = None,
        compile: bool = False,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_warmup: int = 0,
        ema_halflife: float = 500_000,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        source = Source(start, "start")
        chosen_sampler, chosen_times = sampler or source.sampler, times or source.times or UniformTimes()
        if chosen_sampler is None:
            raise UserError("the start does not say how it draws; name a sampler: --model.sampler Heun")
        taken = taken_over(source, self, network, kernel, parameterization)
        super().__init__(
            taken.network,
            taken.kernel,
            taken.parameterization,
            chosen_sampler,
            chosen_times,
            compile,
            optimizer,
            lr,
            optimizer_args,
            lr_warmup,
            ema_halflife,
            ema_rampup,
            nonfinite_limit,
            channels_last,
            seed,
        )
        complete_record(self, sampler=chosen_sampler, times=chosen_times)
        self.parts = (Start(start, named=network is not None),)
        chosen = chosen_parameters(self.trained.network, parameters)
        for name, parameter in self.trained.network.named_parameters():
            parameter.requires_grad_(name in chosen)
        self.train()

    def train(self, mode: bool = True) -> FineTuning:
        """Puts what is trained in training mode; frozen statistics stay as they are."""
        super().train(mode)
        for norm in frozen_norms(self.trained):
            norm.eval()
        return self


class Start(Part):
    """The model that a fine-tuning starts from: gives its weights once, as training begins.

    Args:
        path: The file.
        named: Whether the network was named, and so does not have the start's weights yet.
    """

    def __init__(self, path: str, named: bool) -> None:
        self.path, self.started = path, not named

    def setup(self, module: FineTuning) -> None:
        """Checks that the data have the start's images and classes."""
        check_data("start", module, module.trainer.datamodule)

    def begin(self, module: FineTuning) -> None:
        """Gives a network that was named the start's weights, unless training goes on."""
        if not self.started:
            weights = Source(self.path, "start").with_network("network").network.state_dict()
            for denoiser in (module.trained, module.average):
                load_weights(denoiser.network, weights, f"start {self.path}")
            self.started = True

    def take_progress(self, progress: dict[str, Any]) -> None:
        """Remembers that training goes on."""
        self.started = True
