"""Checkpoints of openai/guided-diffusion (ADM) and openai/improved-diffusion: state dicts with a learned variance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from torch import Tensor

from repro.errors import check_choice
from repro.kernels import DiscreteVP
from repro.models.denoising import DenoisingModel
from repro.parameterizations import Eps
from repro.released import openai_unets
from repro.released.base import ForeignFile, Format
from repro.released.equations import usual_sampler
from repro.released.guided_diffusion import layout
from repro.samplers.base import Sampler
from repro.times import DiscreteTimes

__all__ = ["GuidedDiffusionFormat"]

Schedule = Literal["linear", "cosine"]
AttentionOrder = Literal["legacy", "new"]


class _Published(NamedTuple):
    """What the commands in the projects' READMEs say about a network, and its file does not."""

    image_size: int
    schedule: Schedule
    heads: int | None = None
    channels_per_head: int | None = None
    attention_order: AttentionOrder = "legacy"


# By what changes the resolution (blocks: guided-diffusion; convolutions: improved-diffusion) and the multipliers.
_PUBLISHED = {
    ("block", (1, 2, 3, 4)): _Published(64, "cosine", channels_per_head=64, attention_order="new"),
    ("block", (1, 1, 2, 3, 4)): _Published(128, "linear", heads=4),
    ("block", (1, 1, 2, 2, 4, 4)): _Published(256, "linear", channels_per_head=64),
    ("block", (0.5, 1, 1, 2, 2, 4, 4)): _Published(512, "linear", channels_per_head=64),
    ("conv", (1, 2, 2, 2)): _Published(32, "cosine", heads=4),
    ("conv", (1, 2, 3, 4)): _Published(64, "cosine", heads=4),
    ("conv", (1, 1, 2, 2, 4, 4)): _Published(256, "linear", heads=4),
}
_STATE_DICTS = {"legacy": layout.legacy_state_dict, "new": layout.state_dict}


class GuidedDiffusionFormat(Format):
    """ADM (openai/guided-diffusion, openai/improved-diffusion): ``256x256_diffusion.pt``, ``cifar10_uncond_*.pt``.

    State dicts of networks with a learned variance, whose channels are not used. Names and shapes tell the network but
    for its heads; the rest is taken from the published network of the same multipliers, else it must be given.

    Args:
        schedule: Noise levels of DDPM's steps: ``linear`` or ``cosine``.
        image_size: Pixels a side.
        heads: Number of attention heads.
        channels_per_head: Channels of an attention head, in place of ``heads``.
        attention_order: Whether heads come before query, key and value (``legacy``) or behind (``new``), as the
            projects' option ``use_new_attention_order`` says.
        sampler: How images are drawn, in place of DPM-Solver.

    Raises:
        UserError: an unknown schedule or order.
    """

    about: ClassVar[str] = "openai/guided-diffusion or improved-diffusion, a plain state dict with a learned variance"

    def __init__(
        self,
        schedule: Schedule | None = None,
        image_size: int | None = None,
        heads: int | None = None,
        channels_per_head: int | None = None,
        attention_order: AttentionOrder | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("schedule of guided_diffusion", schedule, Schedule)
        check_choice("attention order of guided_diffusion", attention_order, AttentionOrder)
        self.schedule, self.image_size, self.attention_order = schedule, image_size, attention_order
        self.heads, self.channels_per_head = heads, channels_per_head

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_is_unet) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = file.require(_is_unet)
        unet, usual = self.unet_of(file, weights.tensors)
        order = self.settle(file, "attention_order", usual.attention_order if usual else "legacy")
        kernel = DiscreteVP(self.settle(file, "schedule", usual and usual.schedule, _why(unet)))
        meaning = Eps(condition_scale=float(kernel.steps), condition_shift=-1.0)
        ours, parts = _STATE_DICTS[order], (kernel, meaning, DiscreteTimes())
        what = f"U-Net of ADM of width {unet['model_channels']} with a learned variance, which is dropped"
        record = openai_unets.settings(unet)
        return self.assemble(file, weights, record, ours, parts, usual_sampler("DiscreteVP"), what)

    def unet_of(self, file: ForeignFile, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Any], _Published | None]:
        """Returns the constructor arguments of UNetModel, and the published network of the same multipliers, if any.

        Args:
            file: The file.
            tensors: Its state dict.
        """
        unet = openai_unets.arguments_of(tensors)
        change = "block" if unet["resblock_updown"] else "conv" if unet["conv_resample"] else "plain"
        usual = _PUBLISHED.get((change, tuple(unet["channel_mult"])))
        why = _why(unet)
        unet["image_size"] = self.settle(file, "image_size", usual and usual.image_size, why)
        if self.channels_per_head is None and (self.heads is not None or (usual and usual.heads)):
            unet["num_heads"] = self.settle(file, "heads", usual and usual.heads)
        else:
            per_head = usual and usual.channels_per_head
            unet["num_head_channels"] = self.settle(file, "channels_per_head", per_head, why)
        return unet, usual


def _why(unet: Mapping[str, Any]) -> str:
    return f"no published network has the multipliers {unet['channel_mult']}"


def _is_unet(tensors: Mapping[str, Tensor]) -> bool:
    return openai_unets.is_unet(tensors) and openai_unets.has_variance(tensors)
