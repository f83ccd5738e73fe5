"""Folders of diffusers without text: a ``UNet2DModel`` that is a DDPM network, with the settings beside its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from torch import Tensor

from repro.errors import UserError, check_choice
from repro.kernels import DiscreteVP
from repro.models.denoising import DenoisingModel
from repro.parameterizations import X0, Eps, V
from repro.released.base import ForeignFile, Format, Parts
from repro.released.diffusers import layout
from repro.released.equations import usual_sampler
from repro.released.folders import settings_in
from repro.samplers.base import Sampler
from repro.times import DiscreteTimes

__all__ = ["DiffusersFormat"]

Schedule = Literal["linear", "cosine", "scaled_linear"]
Prediction = Literal["epsilon", "v_prediction", "sample"]
_MEANINGS: dict[str, type[Eps | V | X0]] = {"epsilon": Eps, "v_prediction": V, "sample": X0}
_SCHEDULERS = ("DDPM", "DDIM", "PNDM", "DPMSolverMultistep", "DPMSolverSinglestep", "UniPCMultistep", "DEISMultistep")
_SCHEDULES = {"linear": (1e-4, 0.02), "squaredcos_cap_v2": None, "scaled_linear": (0.00085, 0.012)}
_MOST_STEPS = 100_000
_BETAS = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02, "num_train_timesteps": 1000}


class DiffusersFormat(Format):
    """Unconditional models of diffusers: folders such as google/ddpm-cifar10-32, with ``unet`` and ``scheduler``.

    The network's settings are read from ``config.json`` beside its weights (safetensors or ``.bin``), the noise levels
    and the meaning of the output from ``scheduler/scheduler_config.json``. Drawn as the paper draws from DDPM; the
    scheduler's DDIM in 50 equal steps is ``--sampler Euler --sampler.spacing time_uniform --sampler.t_end 0.02``, with
    ``--sampler.clip true`` where it clips. Other networks are drawn from by diffusers itself: the model ``Pipeline``.

    Args:
        schedule: Noise levels of DDPM's steps, where there are no settings of a scheduler.
        prediction: What the network predicts, likewise: the noise (``epsilon``), ``v_prediction`` or the image
            (``sample``).
        image_size: Pixels a side, where the settings leave it open.
        sampler: How images are drawn, in place of DPM-Solver.

    Raises:
        UserError: an unknown schedule or prediction.
    """

    about: ClassVar[str] = "a folder of diffusers with a UNet2DModel, such as google/ddpm-cifar10-32"

    def __init__(
        self,
        schedule: Schedule | None = None,
        prediction: Prediction | None = None,
        image_size: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        super().__init__(sampler)
        check_choice("schedule of diffusers", schedule, Schedule)
        check_choice("prediction of diffusers", prediction, Prediction)
        self.schedule, self.prediction, self.image_size = schedule, prediction, image_size

    def recognises(self, file: ForeignFile) -> bool:
        return file.weights(_is_unet) is not None

    def read(self, file: ForeignFile) -> DenoisingModel:
        config = settings_in(file.path.with_name("config.json"))
        if not config:
            raise UserError(f"{file.path} needs the settings of its network beside it, config.json; copy it there")
        if config.get("sample_size") is None or self.image_size is not None:
            config |= {"sample_size": self.settle(file, "image_size", None)}
        record, parts = layout.settings(config), self._parts(file)
        what = f"UNet2DModel of width {record['args']['width']}"
        sampler = usual_sampler("DiscreteVP")
        return self.assemble(file, file.require(_is_unet), record, layout.state_dict, parts, sampler, what)

    def _parts(self, file: ForeignFile) -> Parts:
        beside = file.path.with_name("scheduler_config.json")
        path = beside if beside.is_file() else file.path.parent.parent / "scheduler" / beside.name
        scheduler = settings_in(path)
        if not scheduler:
            schedule, steps = self.settle(file, "schedule", "linear"), 1000
            prediction = self.settle(file, "prediction", "epsilon")
        else:
            schedule, steps = _schedule_of(scheduler, str(path))
            prediction = scheduler.get("prediction_type", "epsilon")
            if prediction not in _MEANINGS:
                raise UserError(f"{path}: prediction_type is {prediction!r:.40}; known: {', '.join(_MEANINGS)}")
        kernel = DiscreteVP(schedule, steps)
        meaning = _MEANINGS[prediction](condition_scale=float(kernel.steps), condition_shift=-1.0)
        return kernel, meaning, DiscreteTimes()


def _schedule_of(scheduler: Mapping[str, Any], path: str) -> tuple[Schedule, int]:
    """Our name of a scheduler's noise levels, and their number."""
    name = str(scheduler.get("_class_name", "DDPMScheduler")).removesuffix("Scheduler")
    levels = {key: scheduler.get(key, usual) for key, usual in _BETAS.items()}
    schedule, steps = levels["beta_schedule"], levels["num_train_timesteps"]
    ends = _SCHEDULES.get(schedule)
    same = (
        1 < steps <= _MOST_STEPS
        if ends is None
        else steps == 1000 and ends == (levels["beta_start"], levels["beta_end"])
    )
    special = [key for key in ("trained_betas", "rescale_betas_zero_snr") if scheduler.get(key)]
    if name not in _SCHEDULERS or schedule not in _SCHEDULES or not same or special or not isinstance(steps, int):
        raise UserError(
            f"{path} has noise levels that no kernel here has ({name}Scheduler, {schedule!r:.40}"
            f"{', ' + special[0] if special else ''}); diffusers itself draws from it: repro predict --model Pipeline "
            "--model.pipeline DIR"
        )
    ours: dict[str, Schedule] = {"linear": "linear", "scaled_linear": "scaled_linear", "squaredcos_cap_v2": "cosine"}
    return ours[schedule], steps


def _is_unet(tensors: Mapping[str, Tensor]) -> bool:
    needed = ("conv_in.weight", "time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight")
    return all(name in tensors for name in needed) and not any("transformer_blocks" in name for name in tensors)
