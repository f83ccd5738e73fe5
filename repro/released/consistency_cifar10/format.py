"""Checkpoints of openai/consistency_models_cifar10: flax files of one NCSN++, used in two ways."""

from __future__ import annotations

from typing import ClassVar

from repro.errors import check_choice
from repro.models.denoising import DenoisingModel
from repro.released.base import ForeignFile, Format
from repro.released.consistency_cifar10 import layout
from repro.released.flax_unets import arguments_of, has_unet, is_unet
from repro.released.flax_weights import weights_as_torch
from repro.released.uses import Use, parts_of_use, words_of_use
from repro.samplers.base import Sampler

__all__ = ["ConsistencyCIFAR10Format"]

_CONDITION_SCALE = 0.25
_IMAGE_SIZE = 32


class ConsistencyCIFAR10Format(Format):
    """Consistency models for CIFAR-10 (openai/consistency_models_cifar10): ``checkpoint_*`` files of flax.

    Its average (``params_ema``) draws. Names and shapes tell the network but not its use: as a consistency function
    (``cd-*``, ``ct-*``), drawn in one step, or as a denoiser of EDM (``edm``), drawn with Heun's method in 18 steps.

    Args:
        use: ``consistency`` or ``denoiser``; by default the latter for files in a folder whose name begins with edm.
        image_size: Pixels a side; 32 as published.
        attention_at: Sizes of the feature maps with attention, where the widths leave them open; 16 as published.
        fir: Whether resampling blocks filter with [1, 3, 3, 1]; by default as the rest of the network.
        sampler: How images are drawn.

    Raises:
        UserError: an unknown use.
    """

    about: ClassVar[str] = "openai/consistency_models_cifar10, a flax file with 'params_ema'"

    def __init__(
        self,
        use: Use | None = None,
        image_size: int | None = None,
        attention_at: list[int] | None = None,
        fir: bool | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("use of a consistency model", use, Use)
        self.use, self.image_size, self.attention_at, self.fir = use, image_size, attention_at, fir

    def recognises(self, file: ForeignFile) -> bool:
        return has_unet(file, of_optimizer=False)

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = weights_as_torch(file.require(is_unet))
        _, config = arguments_of(self, file, weights.tensors, self.settle(file, "image_size", _IMAGE_SIZE))
        record = layout.settings(config)
        taught = any(part.lower().startswith("edm") for part in file.path.parts[-3:])
        use = self.settle(file, "use", "denoiser" if taught else "consistency")
        parts, sampler = parts_of_use(use, _CONDITION_SCALE, 18)
        what = f"NCSN++ of width {record['args']['width']}, {words_of_use(use)}"
        return self.assemble(file, weights, record, layout.state_dict, parts, sampler, what)
