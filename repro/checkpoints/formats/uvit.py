"""Checkpoints of baofff/U-ViT: plain state dicts."""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.checkpoints.formats.base import ForeignFile, Format, fill, outline, tensors_of, variance_preserving
from repro.checkpoints.formats.transformers import uvit_record
from repro.checkpoints.layouts import uvit
from repro.errors import UserError, unknown
from repro.modules.diffusion import Diffusion
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver

__all__ = ["UViTFormat"]


class UViTFormat(Format):
    """U-ViT (baofff/U-ViT): released ``.pth`` files, and ``nnet_ema.pth`` of its training.

    Shapes tell everything but the heads. Models of pixels were trained under VP in continuous time; those of latents
    under Stable Diffusion's noise levels, which no kernel here has.

    Args:
        heads: Attention heads; by default those of the published network of the same width.
        kernel: ``VP``, or ``DiscreteVP`` for DDPM's 1000 steps.
        sampler: How images are drawn, in place of DPM-Solver.

    Raises:
        UserError: an unknown kernel.
    """

    about: ClassVar[str] = "baofff/U-ViT, a plain state dict"

    def __init__(
        self,
        heads: int | None = None,
        kernel: Literal["VP", "DiscreteVP"] | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        if kernel not in (None, "VP", "DiscreteVP"):
            raise unknown("kernel of uvit", kernel, ("VP", "DiscreteVP"))
        self.heads, self.kernel = heads, kernel

    def recognises(self, file: ForeignFile) -> bool:
        tensors = tensors_of(file.content)
        return tensors is not None and {"pos_embed", "mid_block.norm1.weight", "decoder_pred.weight"} <= tensors.keys()

    def read(self, file: ForeignFile) -> Diffusion:
        tensors = tensors_of(file.content)
        given = uvit_record(self, file, tensors)
        if given["in_chans"] == 4 and self.kernel is None:
            raise UserError(
                f"{file.path} denoises latents of 4 channels, which U-ViT trains under Stable Diffusion's noise "
                "levels; no kernel here has them: to take another all the same, type --kernel DiscreteVP"
            )
        record = uvit.settings(given)
        state = uvit.state_dict(tensors, outline(file, record, tensors.values()))
        parts = variance_preserving(self.settle(file, "kernel", "VP"))
        module = self.diffusion(record, *parts[:2], DPMSolver(spacing="time_uniform", t_end=1e-3), parts[2])
        fill(module, state, None, file.path)
        file.found = f"U-ViT of width {given['embed_dim']}"
        return module
