"""Which fixture needs which check, by the project and class that its ``meta.json`` names."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from parity_checks.consistency import (
    consistency_losses,
    consistency_network,
    consistency_sampling,
    consistency_schedules,
)
from parity_checks.dit import dit
from parity_checks.dpm_solver import dpm_solver
from parity_checks.dps import posterior_sampling
from parity_checks.edm import edm_block, edm_loss, edm_network, edm_sampler
from parity_checks.fixture import Check, Fixture
from parity_checks.gan import gan
from parity_checks.generalizability import optimal_denoiser, sscd_scores
from parity_checks.jacobian import jacobian_rank
from parity_checks.jax import jax_consistency, jax_progressive
from parity_checks.multistage import multistage_edm, multistage_score_sde
from parity_checks.progressive import progressive_distillation
from parity_checks.score_sde import score_sde_marginals, score_sde_network
from parity_checks.sscd import sscd_network, sscd_parts
from parity_checks.uvit import uvit
from parity_checks.vae import vae

__all__ = ["KNOWN", "Known", "Result", "run_fixture"]


class Known(NamedTuple):
    """A kind of fixture: patterns for its project and for its class (its group, where it has none), and its check."""

    peer: str
    classes: str
    check: Callable[[Fixture], Iterator[Check]]


KNOWN = (
    Known(r"NVlabs/edm", r".*_sampler.*", edm_sampler),
    Known(r"NVlabs/edm", r".*Loss.*", edm_loss),
    Known(r"NVlabs/edm", r"UNetBlock", edm_block),
    Known(r"NVlabs/edm", r"\w+Precond.*", edm_network),
    Known(r"yang-song/score_sde_pytorch", r".*SDE.*", score_sde_marginals),
    Known(r"yang-song/score_sde_pytorch", r"DDPM|NCSNpp", score_sde_network),
    Known(r"LucasYFL/Multistage_Diffusion.*", r"\w+Precond.*", multistage_edm),
    Known(r"LucasYFL/Multistage_Diffusion.*", r"UViT.*|DiT|NCSNpp.*|DDPM", multistage_score_sde),
    Known(r"openai/consistency_models", r".*karras_sample", consistency_sampling),
    Known(r"openai/consistency_models", r".*losses", consistency_losses),
    Known(r"openai/consistency_models", r"UNetModel.*", consistency_network),
    Known(r"openai/consistency_models.*", r".*scales_fn.*", consistency_schedules),
    Known(r"openai/consistency_models_cifar10 \(JAX\)", r"jax_consistency", jax_consistency),
    Known(r"google-research diffusion_distillation \(JAX\)", r"jax_progressive", jax_progressive),
    Known(r"baofff/U-ViT", r"UViT", uvit),
    Known(r"facebookresearch/DiT", r"DiT", dit),
    Known(r"LuChengTHU/dpm-solver", r".*DPM_Solver.*", dpm_solver),
    Known(r"kwotsin/mimicry", r".*Generator.*", gan),
    Known(r"jmtomczak/vae_vampprior", r"VAE", vae),
    Known(r"huijieZH/Diffusion-Model-Generalizability", r".*optimal.*", optimal_denoiser),
    Known(r"huijieZH/Diffusion-Model-Generalizability", r".*score.*", sscd_scores),
    Known(r"huijieZH/Diffusion-Model-Generalizability", r".*Precond.*", jacobian_rank),
    Known(r"Hramchenko/diffusion_distiller", r".*", progressive_distillation),
    Known(r"DPS2022/diffusion-posterior-sampling", r".*", posterior_sampling),
    Known(r"facebookresearch/sscd-copy-detection.*", r".*GeMPool.*", sscd_parts),
    Known(r"facebookresearch/sscd-copy-detection.*", r"Model.*", sscd_network),
)


class Result(NamedTuple):
    """What came of a fixture: its name, ``pass``, ``FAIL`` or ``unknown``, the checks, and why."""

    name: str
    verdict: str
    checks: list[Check]
    reason: str = ""


def run_fixture(folder: Path) -> Result:
    """Runs the checks of one fixture folder; an output that no check looked at fails."""
    try:
        fixture = Fixture(folder)
    except (OSError, ValueError) as error:
        return Result(folder.name, "FAIL", [], f"meta.json cannot be read: {error}")
    peer, classes = fixture.meta.get("peer", ""), fixture.meta.get("class", fixture.meta.get("group", ""))
    classes = classes if isinstance(classes, str) else ", ".join(classes)
    known = next((k for k in KNOWN if re.fullmatch(k.peer, peer) and re.fullmatch(k.classes, classes)), None)
    if known is None:
        return Result(fixture.name, "unknown", [], f"no check for {classes or 'no class'} of {peer or 'no peer'}")
    try:
        with torch.no_grad():
            checks = list(known.check(fixture))
    except Exception as error:
        return Result(fixture.name, "FAIL", [], f"{type(error).__name__}: {' '.join(str(error).split())}")
    left = sorted(fixture.outputs - {check.name for check in checks})
    checks += [Check(name, math.inf, 0.0, math.inf) for name in left]
    verdict = "pass" if checks and all(check.passed for check in checks) else "FAIL"
    return Result(fixture.name, verdict, checks, f"not compared: {', '.join(left)}" if left else "")
