"""Checkpoints of baofff/U-ViT: plain state dicts."""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.errors import check_choice
from repro.kernels import DiscreteVP, Kernel
from repro.models.denoising import DenoisingModel
from repro.parameterizations import Eps, Parameterization
from repro.released.base import ForeignFile, Format, named, variance_preserving
from repro.released.transformers import uvit_record
from repro.released.uvit import layout as uvit
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver
from repro.times import DiscreteTimes, TimeDistribution

__all__ = ["UViTFormat"]

KernelName = Literal["VP", "DiscreteVP", "StableDiffusion"]
_NAMES = named("pos_embed", "mid_block.norm1.weight", "decoder_pred.weight")
_NULL_CLASS = {1001: True, 11: None, 101: None}  # rows of a class table; None: its shape cannot tell


class UViTFormat(Format):
    """U-ViT (baofff/U-ViT): released ``.pth`` files, and ``nnet_ema.pth`` of its training.

    Shapes tell everything but the heads. Models of pixels were trained under VP in continuous time; those of latents
    (4 channels) under Stable Diffusion's 1000 steps, counted from 1.

    Args:
        heads: Attention heads; by default those of the published network of the same width.
        kernel: ``VP``, ``DiscreteVP`` for DDPM's 1000 steps, or ``StableDiffusion`` for those.
        null_class: Whether the last row of the class table means "no class", as in the released models with 1001 rows.
            Must be given for tables of 11 and 101 rows.
        sampler: How images are drawn, in place of DPM-Solver.

    Raises:
        UserError: an unknown kernel.
    """

    about: ClassVar[str] = "baofff/U-ViT, a plain state dict"

    def __init__(
        self,
        heads: int | None = None,
        kernel: KernelName | None = None,
        null_class: bool | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("kernel of uvit", kernel, KernelName)
        self.heads, self.kernel, self.null_class = heads, kernel, null_class

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_NAMES) is not None and file.shadow is None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = file.require(_NAMES)
        tensors = weights.tensors
        arguments = uvit_record(self, file, tensors)
        record, latents = uvit.settings(arguments), arguments["in_chans"] == 4
        if rows := record["args"]["num_classes"]:
            why = f"its class table has {rows} rows: {rows} classes, or one fewer and 'no class'?"
            if self.settle(file, "null_class", _NULL_CLASS.get(rows, False), why):
                record["args"] |= {"num_classes": rows - 1, "null_class": True}
        parts = _parts(self.settle(file, "kernel", "StableDiffusion" if latents else "VP"))
        sampler = DPMSolver(spacing="time_uniform", t_end=1e-3)
        what = f"U-ViT of width {arguments['embed_dim']}{' on latents of 4 channels' * latents}"
        return self.assemble(file, weights, record, uvit.state_dict, parts, sampler, what)


def _parts(name: str) -> tuple[Kernel, Parameterization, TimeDistribution]:
    """Kernel, meaning of the output and training times of a model by the kernel's name."""
    if name != "StableDiffusion":
        return variance_preserving(name)
    kernel = DiscreteVP("scaled_linear")
    return kernel, Eps(condition_scale=float(kernel.steps)), DiscreteTimes()
