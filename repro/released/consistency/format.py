"""Checkpoints of openai/consistency_models: plain state dicts of one U-Net, used in two ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from repro.errors import check_choice
from repro.models.denoising import DenoisingModel
from repro.released import openai_unets as consistency
from repro.released.base import ForeignFile, Format
from repro.released.uses import Use, parts_of_use, words_of_use
from repro.samplers.base import Sampler

__all__ = ["ConsistencyFormat"]

_SIZES = {(1, 2, 3, 4): 64, (1, 1, 2, 2, 4, 4): 256}
_CHANNELS_PER_HEAD, _CONDITION_SCALE = 64, 250.0


class ConsistencyFormat(Format):
    """Consistency models (openai/consistency_models): ``cd_*.pt``, ``ct_*.pt``, and their teachers ``edm_*.pt``.

    Names and shapes tell the network but not its use: as a consistency function (``cd_``, ``ct_``), drawn in one step,
    or as a denoiser of EDM (``edm_``), drawn with Heun's method in 40 steps. Noise levels run from 0.002 to 80.

    Args:
        use: ``consistency`` or ``denoiser``; by default the latter for files whose name begins with ``edm``.
        image_size: Pixels a side; by default that of the published network with the same resolutions.
        channels_per_head: Channels of an attention head; 64 in the published networks.
        sampler: How images are drawn.

    Raises:
        UserError: an unknown use.
    """

    about: ClassVar[str] = "openai/consistency_models, a plain state dict"

    def __init__(
        self,
        use: Use | None = None,
        image_size: int | None = None,
        channels_per_head: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("use of a consistency model", use, Use)
        self.use, self.image_size, self.channels_per_head = use, image_size, channels_per_head

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_is_unet) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = file.require(_is_unet)
        tensors = weights.tensors
        unet = self._record(file, tensors)
        use = self.settle(file, "use", "denoiser" if file.path.name.startswith("edm") else "consistency")
        parts, sampler = parts_of_use(use, _CONDITION_SCALE, 40)
        what = f"U-Net of width {unet['model_channels']}, {words_of_use(use)}"
        return self.assemble(file, weights, consistency.settings(unet), consistency.state_dict, parts, sampler, what)

    def _record(self, file: ForeignFile, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of UNetModel."""
        unet = consistency.arguments_of(tensors)
        mults = unet["channel_mult"]
        size = self.settle(file, "image_size", _SIZES.get(tuple(mults)), f"its network has {len(mults)} resolutions")
        return unet | {
            "image_size": size,
            "num_head_channels": self.settle(file, "channels_per_head", _CHANNELS_PER_HEAD),
        }


def _is_unet(tensors: Mapping[str, Tensor]) -> bool:
    return consistency.is_unet(tensors) and not consistency.has_variance(tensors)
