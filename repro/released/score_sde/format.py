"""Checkpoints of yang-song/score_sde_pytorch: ``ddpm`` and ``ncsnpp`` under any of its equations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from repro.errors import UserError, check_choice
from repro.kernels import Kernel
from repro.models.denoising import DenoisingModel
from repro.parameterizations import Parameterization
from repro.released.base import ForeignFile, Format, negating, variance_preserving
from repro.released.equations import KernelName, usual_sampler, variance_exploding
from repro.released.module_lists import UNet, image_size_of, output_path, parts_of, read_encoder
from repro.released.score_sde import layout as score_sde
from repro.samplers.base import Sampler
from repro.times import TimeDistribution

__all__ = ["ScoreSDEFormat"]

NetworkName = Literal["ddpm", "ncsnpp"]


class ScoreSDEFormat(Format):
    """score_sde (yang-song/score_sde_pytorch): ``checkpoint_*.pth``, DDPM, DDPM++ and NCSN++.

    Names and shapes tell the network; the averaged weights come from the list ``ema.shadow_params``. No file tells its
    equation: networks with random frequencies are taken for VE, others for VP in continuous time.

    Args:
        kernel: ``VP``, ``SubVP``, ``DiscreteVP`` (DDPM's 1000 steps) or ``VE`` (noise levels from the file; with
            sines at fixed frequencies its discrete form, interpolated between the levels).
        image_size: Pixels a side; 32 for networks of up to four resolutions.
        network: ``ddpm`` or ``ncsnpp``, where both have these layers.
        fir: Whether resampling blocks filter with [1, 3, 3, 1]; by default as the rest of the network.
        centred: VE: whether the network was fed images in [-1, 1]; else in [0, 1], as published.
        sampler: How images are drawn; by default DPM-Solver, RK45 for SubVP and VE.

    Raises:
        UserError: an unknown kernel or network.
    """

    about: ClassVar[str] = "yang-song/score_sde_pytorch, entries 'model' and 'ema'"

    def __init__(
        self,
        kernel: KernelName | None = None,
        image_size: int | None = None,
        network: NetworkName | None = None,
        fir: bool | None = None,
        centred: bool | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("kernel of score_sde", kernel, KernelName)
        check_choice("network of score_sde", network, NetworkName)
        self.kernel, self.image_size, self.network, self.fir, self.centred = kernel, image_size, network, fir, centred

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_is_module_list) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        weights = file.require(_is_module_list)
        tensors = weights.tensors
        unet, decoder = read_encoder(parts_of(tensors, "all_modules"))
        kernel = self.settle(file, "kernel", "VE" if unet.fourier else "VP")
        config = self._model(file, unet) | {"progressive": output_path(decoder, unet.channels)}
        data = {"image_size": image_size_of(self, file, unet), "num_channels": unet.channels, "centered": True}
        record = score_sde.settings({"model": config, "data": data})
        if kernel == "VE":
            record["args"] |= {"log_noise_level": False}
        parts = self._variance_exploding(file, tensors, unet) if kernel == "VE" else variance_preserving(kernel)
        ours = negating(score_sde.state_dict) if kernel == "VE" else score_sde.state_dict
        sampler = usual_sampler(kernel)
        return self.assemble(file, weights, record, ours, parts, sampler, config["name"], score_sde.with_shadow)

    def _model(self, file: ForeignFile, unet: UNet) -> dict[str, Any]:
        either = not (unet.block_resampling or unet.filtered or unet.fourier or unet.input_path != "none")
        name = (self.settle(file, "network", "ddpm") if either else self.network) or "ncsnpp"
        model = unet.record(image_size_of(self, file, unet)) | {"name": name}
        if name == "ncsnpp" and not unet.filtered:
            model["fir"] = self.settle(file, "fir", False)
        return model

    def _variance_exploding(
        self, file: ForeignFile, tensors: Mapping[str, Tensor], unet: UNet
    ) -> tuple[Kernel, Parameterization, TimeDistribution]:
        levels = tensors.get("sigmas")
        if levels is None or levels.ndim != 1 or len(levels) < 2:
            raise UserError(f"{file.path} has no table of noise levels ('sigmas'), which VE needs; type --kernel VP")
        ends = levels.min().item(), levels.max().item(), len(levels)
        return variance_exploding(*ends, unet.fourier, self.settle(file, "centred", False))


def _is_module_list(tensors: Mapping[str, Tensor]) -> bool:
    return any(name.startswith("all_modules.") for name in tensors)
