"""Checkpoints of yang-song/score_sde: flax files of ``ddpm`` and ``ncsnpp`` under any of its equations."""

from __future__ import annotations

from typing import ClassVar

from repro.errors import check_choice
from repro.models.denoising import DenoisingModel
from repro.released.base import ForeignFile, Format, negating, variance_preserving
from repro.released.equations import KernelName, usual_sampler, variance_exploding
from repro.released.flax_unets import arguments_of, has_unet, is_unet
from repro.released.flax_weights import weights_as_torch
from repro.released.score_sde_jax import layout
from repro.samplers.base import Sampler

__all__ = ["ScoreSDEJAXFormat"]

_IMAGE_SIZE, _SIGMA_MIN, _SIGMA_MAX, _LEVELS = 32, 0.01, 50.0, 1000


class ScoreSDEJAXFormat(Format):
    """score_sde in JAX (yang-song/score_sde): ``checkpoint_*`` files of flax, DDPM, DDPM++ and NCSN++.

    Names and shapes tell the network; the average is ``params_ema``. No file tells its equation: networks with random
    frequencies are taken for VE, others for VP in continuous time.

    Args:
        kernel: ``VP``, ``SubVP``, ``DiscreteVP`` (DDPM's 1000 steps) or ``VE``.
        image_size: Pixels a side; 32 as published for CIFAR-10.
        attention_at: Sizes of the feature maps with attention, where the widths leave them open; 16 as published.
        fir: Whether resampling blocks filter with [1, 3, 3, 1]; by default as the rest of the network.
        centred: VE: whether the network was fed images in [-1, 1]; else in [0, 1], as published.
        sigma_max: VE: largest noise level, in units of the images that the network was fed; 50 for CIFAR-10.
        sampler: How images are drawn; by default DPM-Solver, RK45 for SubVP and VE.

    Raises:
        UserError: an unknown kernel.
    """

    about: ClassVar[str] = "yang-song/score_sde (JAX), a flax file with 'optimizer' and 'params_ema'"

    def __init__(
        self,
        kernel: KernelName | None = None,
        image_size: int | None = None,
        attention_at: list[int] | None = None,
        fir: bool | None = None,
        centred: bool | None = None,
        sigma_max: float | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("kernel of score_sde", kernel, KernelName)
        self.kernel, self.image_size, self.attention_at, self.fir = kernel, image_size, attention_at, fir
        self.centred, self.sigma_max = centred, sigma_max

    def recognises(self, file: ForeignFile) -> bool:
        return has_unet(file, of_optimizer=True)

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = weights_as_torch(file.require(is_unet))
        unet, config = arguments_of(self, file, weights.tensors, self.settle(file, "image_size", _IMAGE_SIZE))
        kernel = self.settle(file, "kernel", "VE" if unet.fourier else "VP")
        record = layout.settings(config)
        if kernel == "VE":
            record["args"] |= {"log_noise_level": False}
            levels = _SIGMA_MIN, self.settle(file, "sigma_max", _SIGMA_MAX), _LEVELS
            parts = variance_exploding(*levels, unet.fourier, self.settle(file, "centred", False))
        else:
            parts = variance_preserving(kernel)
        ours = negating(layout.state_dict) if kernel == "VE" else layout.state_dict
        return self.assemble(file, weights, record, ours, parts, usual_sampler(kernel), config["model"]["name"])
