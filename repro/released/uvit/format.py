"""Checkpoints of baofff/U-ViT: plain state dicts."""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.errors import unknown
from repro.kernels import DiscreteVP, Kernel
from repro.parameterizations import Eps, Parameterization
from repro.released.base import ForeignFile, Format, fill, outline, tensors_of, variance_preserving
from repro.released.transformers import uvit_record
from repro.released.uvit import layout as uvit
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver
from repro.times import DiscreteTimes, TimeDistribution
from repro.training.diffusion import Diffusion

__all__ = ["UViTFormat"]

_KERNELS = ("VP", "DiscreteVP", "StableDiffusion")
_ROWS_WITH_NULL = 1001


class UViTFormat(Format):
    """U-ViT (baofff/U-ViT): released ``.pth`` files, and ``nnet_ema.pth`` of its training.

    Shapes tell everything but the heads. Models of pixels were trained under VP in continuous time; those of latents
    (4 channels) under Stable Diffusion's 1000 steps, counted from 1.

    Args:
        heads: Attention heads; by default those of the published network of the same width.
        kernel: ``VP``, ``DiscreteVP`` for DDPM's 1000 steps, or ``StableDiffusion`` for those.
        null_class: Whether the last row of the class table means "no class", as in the released models with 1001 rows.
        sampler: How images are drawn, in place of DPM-Solver.

    Raises:
        UserError: an unknown kernel.
    """

    about: ClassVar[str] = "baofff/U-ViT, a plain state dict"

    def __init__(
        self,
        heads: int | None = None,
        kernel: Literal["VP", "DiscreteVP", "StableDiffusion"] | None = None,
        null_class: bool | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        if kernel not in (None, *_KERNELS):
            raise unknown("kernel of uvit", kernel, _KERNELS)
        self.heads, self.kernel, self.null_class = heads, kernel, null_class

    def recognises(self, file: ForeignFile) -> bool:
        tensors = tensors_of(file.content)
        return tensors is not None and {"pos_embed", "mid_block.norm1.weight", "decoder_pred.weight"} <= tensors.keys()

    def read(self, file: ForeignFile) -> Diffusion:
        tensors = tensors_of(file.content)
        given = uvit_record(self, file, tensors)
        record, latents = uvit.settings(given), given["in_chans"] == 4
        if (rows := record["args"]["num_classes"]) and self.settle(file, "null_class", rows == _ROWS_WITH_NULL):
            record["args"] |= {"num_classes": rows - 1, "null_class": True}
        state = uvit.state_dict(tensors, outline(file, record, tensors.values()))
        parts = _parts(self.settle(file, "kernel", "StableDiffusion" if latents else "VP"))
        module = self.diffusion(record, *parts[:2], DPMSolver(spacing="time_uniform", t_end=1e-3), parts[2])
        fill(module, state, None, file.path)
        file.found = f"U-ViT of width {given['embed_dim']}{' on latents of 4 channels' if latents else ''}"
        return module


def _parts(name: str) -> tuple[Kernel, Parameterization, TimeDistribution]:
    """Kernel, meaning of the output and training times of a model by the kernel's name."""
    if name != "StableDiffusion":
        return variance_preserving(name)
    kernel = DiscreteVP("scaled_linear")
    return kernel, Eps(condition_scale=float(kernel.steps)), DiscreteTimes()
