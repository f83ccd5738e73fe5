"""Checkpoints of LucasYFL/Multistage_Diffusion: its forks of EDM and of score_sde, with U-Nets and transformers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from types import ModuleType
from typing import Any, ClassVar

from torch import Tensor

from repro.errors import UserError
from repro.models.denoising import DenoisingModel
from repro.released.base import ForeignFile, Format, named, variance_preserving
from repro.released.edm.format import inner_name, read_wrapper, wrapper_of
from repro.released.module_lists import image_size_of, output_path, parts_of, read_encoder
from repro.released.multistage import layout as multistage, transformer_layout as multistage_transformers
from repro.released.transformers import dit_record, uvit_record
from repro.samplers.base import Sampler
from repro.samplers.dpm_solver import DPMSolver

__all__ = ["MultistageFormat"]

_PUBLISHED_BOUNDARIES = {1: [], 3: [0.442, 0.6308]}
_GROUPS = 16


class MultistageFormat(Format):
    """Multistage models (LucasYFL/Multistage_Diffusion): the EDM form, the deep DDPM++ form, and transformers.

    The EDM form is a pickle that says everything, drawn with Heun's method. The others are checkpoints as score_sde's,
    trained under VP in continuous time and drawn with DPM-Solver; they do not say where the stages meet.

    Args:
        boundaries: Times between the stages, ascending, in (0, 1); the published ones for three stages.
        image_size: Pixels a side of a U-Net's images; 32 for networks of up to four resolutions.
        groups: Largest number of groups of a deep U-Net's normalisations; 16 as published.
        fir: Whether resampling blocks filter with [1, 3, 3, 1]; by default as the rest of the network.
        heads: Attention heads of a transformer; by default those of the published network of the same width.
        time_as_class: Whether a DiT is told the time as one of 21 classes.
        sampler: How images are drawn.
    """

    about: ClassVar[str] = "LucasYFL/Multistage_Diffusion, in either of its forms"

    def __init__(
        self,
        boundaries: list[float] | None = None,
        image_size: int | None = None,
        groups: int | None = None,
        fir: bool | None = None,
        heads: int | None = None,
        time_as_class: bool | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        self.boundaries, self.image_size, self.groups, self.fir = boundaries, image_size, groups, fir
        self.heads, self.time_as_class = heads, time_as_class

    def recognises(self, file: ForeignFile) -> bool:
        wrapper = wrapper_of(file.content)
        if wrapper is not None:
            return inner_name(wrapper) == "MultistageUNet"
        if file.weights(_has_decoders) is not None:
            return True
        return file.weights(named("pos_embed")) is not None and file.shadow is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        if wrapper_of(file.content) is not None:
            return read_wrapper(self, file, multistage)
        weights = file.weights(_has_decoders) or file.require(named("pos_embed"))
        tensors = weights.tensors
        layout, config = self._settings(file, tensors)
        stages = len(config["model"].get("de_nfs", [0]))
        what = f"{config['model']['name']} with {stages} decoder{'s' * (stages > 1)}"
        record, parts, sampler = layout.settings(config), variance_preserving("VP"), DPMSolver(t_end=1e-4)
        return self.assemble(file, weights, record, layout.state_dict, parts, sampler, what, layout.with_shadow)

    def _settings(self, file: ForeignFile, tensors: Mapping[str, Tensor]) -> tuple[ModuleType, dict[str, Any]]:
        """The layout, and the configuration that it takes."""
        if "pos_embed" not in tensors:
            return multistage, self._unet(file, tensors)
        if "x_embedder.proj.weight" in tensors:
            model = dit_record(self, file, tensors)
            model |= {"name": "DiT", "treat_t_as_y": self.settle(file, "time_as_class", False)}
            return multistage_transformers, {"model": model}
        model = uvit_record(self, file, tensors)
        size = model.pop("img_size")
        stages = _stages(tensors)
        if stages:
            widths = [tensors[f"norm.{stage}.weight"].shape[0] for stage in range(stages)]
            model |= {"name": "UViT_multimodel", "de_nfs": widths} | self._intervals(file, stages)
        else:
            model |= {"name": "UViT_one_hot" if "label_emb.0.weight" in tensors else "UViT"}
        return multistage_transformers, {"model": model, "data": {"image_size": size}}

    def _unet(self, file: ForeignFile, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        unet, _ = read_encoder(parts_of(tensors, "en_modules"))
        decoders = [parts_of(tensors, f"de_modules.{stage}") for stage in range(_stages(tensors))]
        image_size = image_size_of(self, file, unet)
        model = unet.record(image_size)
        finest = [[part for part in decoder if part.kind == "block"][-1].outputs for decoder in decoders]
        model |= {
            "name": "ncsnpp_multistage",
            "progressive": output_path(decoders[0], unet.channels),
            "en_nf": model.pop("nf"),
            "de_nfs": [width / model["ch_mult"][0] for width in finest],
            "group": self.settle(file, "groups", _GROUPS),
        }
        if not unet.filtered:
            model["fir"] = self.settle(file, "fir", False)
        data = {"image_size": image_size, "num_channels": unet.channels, "centered": True}
        return {"model": model | self._intervals(file, len(decoders)), "data": data}

    def _intervals(self, file: ForeignFile, stages: int) -> dict[str, Any]:
        boundaries = self.settle(file, "boundaries", _PUBLISHED_BOUNDARIES.get(stages), f"it has {stages} stages")
        edges = [0.0, *boundaries, 1.0]
        if len(boundaries) != stages - 1 or any(high <= low for low, high in pairwise(edges)):
            raise UserError(f"boundaries are {boundaries}; give {stages - 1} ascending times in (0, 1), as [0.4, 0.6]")
        return {"stage_num": stages, "stage_interval": [[[low, high]] for low, high in pairwise(edges)]}


def _has_decoders(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("de_modules.") for name in tensors)


def _stages(tensors: Mapping[str, Tensor]) -> int:
    return len({match[1] for name in tensors if (match := re.match(r"de_modules\.(\d+)\.", name))})
