"""Checkpoints of facebookresearch/DiT: plain state dicts, and those of its training."""

from __future__ import annotations

from typing import ClassVar, Literal

from repro.errors import check_choice
from repro.models.denoising import DenoisingModel
from repro.released.base import ForeignFile, Format, named, variance_preserving
from repro.released.dit import layout as dit
from repro.released.transformers import dit_record
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver

__all__ = ["DiTFormat"]

KernelName = Literal["DiscreteVP", "VP"]
_NAMES = named("x_embedder.proj.weight", "pos_embed", "y_embedder.embedding_table.weight")
_UNCLEAR_ROWS = (10, 100, 1000)


class DiTFormat(Format):
    """DiT (facebookresearch/DiT): released ``DiT-*.pt``, and training checkpoints with ``model`` and ``ema``.

    Shapes tell everything but the heads. Trained under DDPM's 1000 steps. The released models denoise latents, so what
    they draw are latents of 4 channels, not pixels.

    Args:
        heads: Attention heads; by default those of the published network of the same width.
        kernel: ``DiscreteVP``, or ``VP`` for a network that was told 999 t.
        null_class: Whether the last row of the class table means "no class", as where labels were dropped in training
            (DiT's own does). Must be given for tables of 10, 100 and 1000 rows.
        guided_channels: How many leading channels guidance pushes. None, the default, is all; DiT's own sampler
            guides 3 of the 4 channels of its latents: ``--guided_channels 3``.
        sampler: How images are drawn, in place of DPM-Solver.

    Raises:
        UserError: an unknown kernel.
    """

    about: ClassVar[str] = "facebookresearch/DiT, a plain state dict, or entries 'model' and 'ema'"

    def __init__(
        self,
        heads: int | None = None,
        kernel: KernelName | None = None,
        null_class: bool | None = None,
        guided_channels: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("kernel of dit", kernel, KernelName)
        self.heads, self.kernel, self.null_class = heads, kernel, null_class
        self.guided_channels = guided_channels

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_NAMES) is not None and file.shadow is None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = file.require(_NAMES)
        tensors = weights.tensors
        rows = len(tensors["y_embedder.embedding_table.weight"])
        why = f"its class table has {rows} rows: {rows} classes, or one fewer and 'no class'?"
        null = self.settle(file, "null_class", None if rows in _UNCLEAR_ROWS else True, why)
        arguments = dit_record(self, file, tensors) | {"num_classes": rows - null, "class_dropout_prob": 0.1 * null}
        parts = variance_preserving(self.settle(file, "kernel", "DiscreteVP"))
        sampler = DPMSolver(t_end=1e-3 if self.kernel == "VP" else None)
        latents = "" if arguments["in_channels"] in (1, 3) else f" on latents of {arguments['in_channels']} channels"
        what = f"DiT of width {arguments['hidden_size']}{latents}"
        record = dit.settings(arguments)
        if self.guided_channels is not None:
            record["args"]["guided_channels"] = self.guided_channels
        return self.assemble(file, weights, record, dit.state_dict, parts, sampler, what)
