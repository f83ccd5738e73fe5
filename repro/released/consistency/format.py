"""Checkpoints of openai/consistency_models: plain state dicts of one U-Net, used in two ways."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from repro.errors import UserError
from repro.models.denoising import DenoisingModel
from repro.released.base import ForeignFile, Format, named
from repro.released.consistency import layout as consistency
from repro.released.uses import Use, check_use, parts_of_use, words_of_use
from repro.samplers.base import Sampler

__all__ = ["ConsistencyFormat"]

_SIZES = {(1, 2, 3, 4): 64, (1, 1, 2, 2, 4, 4): 256}
_NAMES = named("time_embed.0.weight", "input_blocks.0.0.weight", "out.2.weight")
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
        check_use(use)
        self.use, self.image_size, self.channels_per_head = use, image_size, channels_per_head

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_NAMES) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = file.require(_NAMES)
        tensors = weights.tensors
        unet = self._record(file, tensors)
        use = self.settle(file, "use", "denoiser" if file.path.name.startswith("edm") else "consistency")
        parts, sampler = parts_of_use(use, _CONDITION_SCALE, 40)
        what = f"U-Net of width {unet['model_channels']}, {words_of_use(use)}"
        return self.assemble(file, weights, consistency.settings(unet), consistency.state_dict, parts, sampler, what)

    def _record(self, file: ForeignFile, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Constructor arguments of UNetModel."""
        width, channels = tensors["time_embed.0.weight"].shape[1], tensors["input_blocks.0.0.weight"].shape[1]
        outputs = tensors["out.2.weight"].shape[0]
        if outputs != channels:
            raise UserError(
                f"{file.path} predicts {outputs} channels for images of {channels}: a guided-diffusion model with a "
                "learned variance, not a consistency model; no format here reads it"
            )
        widths, attends, num_blocks, change = _levels(tensors)
        mults = [each // width if each % width == 0 else each / width for each in widths]
        size = self.settle(file, "image_size", _SIZES.get(tuple(mults)), f"its network has {len(mults)} resolutions")
        labels = tensors.get("label_emb.weight")
        return {
            "image_size": size,
            "in_channels": channels,
            "model_channels": width,
            "out_channels": outputs,
            "num_res_blocks": num_blocks,
            "attention_resolutions": [2**level for level, attend in enumerate(attends) if attend],
            "channel_mult": mults,
            "num_classes": None if labels is None else labels.shape[0],
            "use_scale_shift_norm": tensors["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
            "resblock_updown": change == "block",
            "conv_resample": change != "plain",
            "num_head_channels": self.settle(file, "channels_per_head", _CHANNELS_PER_HEAD),
        }


def _numbers(tensors: Mapping[str, Tensor], pattern: str) -> set[int]:
    return {int(match[1]) for name in tensors if (match := re.match(pattern, name))}


def _levels(tensors: Mapping[str, Tensor]) -> tuple[list[int], list[bool], int, str]:
    """Channels and attention of every resolution, blocks on each, and what changes the resolution.

    The first place where the decoder doubles it, or where the encoder's numbers leave one out (a layer without
    weights), gives the number of blocks, and so the places of all resolutions.
    """
    ins, outs = (_numbers(tensors, rf"{half}put_blocks\.(\d{{1,4}})\.") for half in ("in", "out"))
    ups = _numbers(tensors, r"output_blocks\.(\d{1,4})\.[12]\.(?:in_layers|conv)\.")
    left_out = set(range(max(ins))) - ins
    num_blocks = min(ups) if ups else min(left_out) - 1 if left_out else max(outs)
    starts = range(1, max(outs) + 2, num_blocks + 1)
    widths = [tensors[f"input_blocks.{start}.0.out_layers.3.weight"].shape[0] for start in starts]
    attends = [f"input_blocks.{start}.1.norm.weight" in tensors for start in starts]
    between = f"input_blocks.{num_blocks + 1}.0"
    changes = {"block": f"{between}.in_layers.2.weight", "conv": f"{between}.op.weight"}
    return widths, attends, num_blocks, next((kind for kind, name in changes.items() if name in tensors), "plain")
