"""Checkpoints of google-research/diffusion_distillation: flax files of one U-Net, original or distilled."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from repro.errors import UserError, check_at_least, check_choice
from repro.kernels import Cosine
from repro.models.denoising import DenoisingModel
from repro.parameterizations import X0, Eps, Parameterization, V, X0AndEps
from repro.released.base import ForeignFile, Format, named
from repro.released.diffusion_distillation import layout
from repro.released.flax_weights import value_of, weights_as_torch
from repro.samplers.base import Sampler
from repro.samplers.euler import Euler

__all__ = ["DiffusionDistillationFormat"]

MeanType = Literal["x", "eps", "v", "both"]
_NAMES = named("conv_in/kernel", "dense0/kernel", "mid.block_1/conv1/kernel", "norm_out/scale")
_IMAGE_SIZE, _STEPS, _CONDITION_SCALE = 32, 1024, 1000.0
_MEANINGS: dict[str, type[Parameterization]] = {"x": X0, "eps": Eps, "v": V, "both": X0AndEps}
# Log signal-to-noise ratios from -20 to 20, between which the angle arctan(sigma / alpha) is linear in time.
_FIRST_TIME = 2 / math.pi * math.atan(math.exp(-10.0))


class DiffusionDistillationFormat(Format):
    """Progressive distillation (google-research/diffusion_distillation): flax files such as ``cifar_original``.

    Names and shapes tell the network but not what it predicts. Its noise level is the angle arctan(sigma / alpha), its
    kernel the cosine one between log signal-to-noise ratios of -20 and 20. Drawn as there: DDIM in equal steps of time,
    each denoised image cut to [-1, 1]; a distilled file says in how many steps.

    Args:
        mean_type: What the network predicts: the image (``x``), the noise (``eps``), ``v``, or image and noise
            (``both``, which the number of its outputs tells).
        steps: Steps of DDIM; by default those in the file, else 1024.
        image_size: Pixels a side; 32 as published for CIFAR-10.
        sampler: How images are drawn, in place of DDIM.

    Raises:
        UserError: an unknown prediction, or fewer than one step.
    """

    about: ClassVar[str] = "google-research/diffusion_distillation, a flax file with 'ema_params'"

    def __init__(
        self,
        mean_type: MeanType | None = None,
        steps: int | None = None,
        image_size: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("prediction of diffusion_distillation", mean_type, MeanType)
        check_at_least(1, steps=steps)
        self.mean_type, self.steps, self.image_size = mean_type, steps, image_size

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_NAMES) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = weights_as_torch(file.require(_NAMES))
        unet = _record(weights.tensors) | {"image_size": self.settle(file, "image_size", _IMAGE_SIZE)}
        unet["attn_resolutions"] = [unet["image_size"] >> level for level in unet["attn_resolutions"]]
        parts, what = (kernel(), self._meaning(file, unet), None), f"U-Net of width {unet['ch']}"
        sampler = ddim(self._steps(file))
        return self.assemble(file, weights, layout.settings(unet), layout.state_dict, parts, sampler, what)

    def _meaning(self, file: ForeignFile, unet: Mapping[str, Any]) -> Parameterization:
        both = unet["out_ch"] == 2 * unet["channels"]
        if self.mean_type is not None and both != (self.mean_type == "both"):
            raise UserError(f"mean_type is {self.mean_type}; {file.path} has {unet['out_ch']} outputs")
        name = "both" if both else self.settle(file, "mean_type", "x")
        return _MEANINGS[name](condition="time", condition_scale=_CONDITION_SCALE)

    def _steps(self, file: ForeignFile) -> int:
        recorded = value_of(file.content, "num_sample_steps")
        if self.steps is None and isinstance(recorded, int | Tensor) and int(recorded) > 0:
            return int(recorded)
        return self.settle(file, "steps", _STEPS)


def kernel() -> Cosine:
    """Returns the kernel of progressive distillation, whose time is 2 / pi arctan(sigma / alpha)."""
    return Cosine(offset=0.0, t_min=_FIRST_TIME, t_max=1 - _FIRST_TIME)


def ddim(steps: int) -> Euler:
    """DDIM at u = 1, (n - 1) / n, ..., 1 / n, where u runs from 0 to 1 over the kernel's times; images are cut."""
    last = _FIRST_TIME + (1 - 2 * _FIRST_TIME) / steps
    return Euler(steps, "time_uniform", t_end=last if steps > 1 else None, clip=True)


def _record(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of the UNet without the image size; attention by the number of the resolution."""
    stem, hidden = tensors["conv_in.weight"], tensors["dense0.weight"]
    levels = range(_count(tensors, r"down_(\d+)\."))
    widths = [tensors[f"down_{level}.block_0.conv1.weight"].shape[0] for level in levels]
    query, classes = tensors["mid.attn_1.q.weight"], tensors.get("class_emb.weight")
    return {
        "channels": stem.shape[1],
        "ch": stem.shape[0],
        "emb_ch": hidden.shape[0],
        "ch_mult": [each // stem.shape[0] if each % stem.shape[0] == 0 else each / stem.shape[0] for each in widths],
        "num_res_blocks": _count(tensors, r"down_0\.block_(\d+)\."),
        "attn_resolutions": [level for level in levels if f"down_{level}.attn_0.q.weight" in tensors],
        "out_ch": tensors["conv_out.weight"].shape[0],
        "num_classes": 1 if classes is None else classes.shape[1],
        "num_heads": query.shape[1],
        "resblock_resample": "down_0.downsample.weight" not in tensors,
    }


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """How many different numbers the names have at the place of the pattern's group."""
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})
