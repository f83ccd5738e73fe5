"""Schedulers of the diffusers library that draw no noise of their own, so that noise i alone settles image i."""

from __future__ import annotations

import json
from typing import Any

from repro.errors import UserError, unknown

__all__ = ["check_scheduler", "scheduler_of", "scheduler_record"]

_CHOICES = {"DDIM": "DDIMScheduler", "DPMSolver": "DPMSolverMultistepScheduler"}
_NOISY = ("DDPM", "Ancestral", "SDE", "LCM", "TCD")
_DETERMINISTIC = (
    *_CHOICES.values(),
    "DPMSolverSinglestepScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
    "DEISMultistepScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "LMSDiscreteScheduler",
)


def check_scheduler(choice: str) -> None:
    """Raises a UserError unless this is the name of a scheduler that draws no noise of its own, or ``own``."""
    if choice in (*_CHOICES, "own"):
        return
    if any(word in choice for word in _NOISY):
        raise UserError(
            f"scheduler {choice} draws noise at each step, so that noise i alone would not settle image i; "
            "give DDIM, DPMSolver or own"
        )
    raise unknown("scheduler", choice, (*_CHOICES, "own"))


def scheduler_of(own: Any, choice: str, **changes: Any) -> Any:
    """Returns the chosen scheduler at the noise levels of the pipeline's own.

    Args:
        own: The pipeline's scheduler.
        choice: ``DDIM``, ``DPMSolver`` or ``own``.
        **changes: Settings that the chosen one has in place of those of the pipeline's.

    Raises:
        UserError: the pipeline's own scheduler is to be taken and draws noise, or has no noise levels of DDPM's kind,
            which the others need.
    """
    name, kind = type(own).__name__, str(own.config.get("algorithm_type", ""))
    if choice != "own":
        import diffusers

        if "beta_schedule" not in own.config:
            raise UserError(
                f"the pipeline's scheduler is {name}, whose noise levels are not those of {choice}; "
                "type --model.scheduler own"
            )
        return getattr(diffusers, _CHOICES[choice]).from_config(own.config, **changes)
    if name not in _DETERMINISTIC or kind.startswith("sde"):
        raise UserError(
            f"the pipeline's own scheduler, {name}{f' ({kind})' if kind else ''}, draws noise at each step or is "
            "unknown; type --model.scheduler DDIM or DPMSolver"
        )
    return own


def scheduler_record(scheduler: Any, steps: int) -> dict[str, Any]:
    """Makes the plain record of a scheduler with its settings and the number of steps."""
    config = {key: value for key, value in scheduler.config.items() if not key.startswith("_")}
    args = json.loads(json.dumps(config, default=list)) | {"steps": steps}
    return {"group": "diffusers", "name": type(scheduler).__name__, "args": args}
