"""Released files of JAX projects, read by the same formats as by ``repro import``: networks, predictions, samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from parity_checks.fixture import Check, Fixture
from repro.released.diffusion_distillation.format import ddim
from repro.released.importing import import_file

__all__ = ["jax_consistency", "jax_progressive"]


def _denoiser(fixture: Fixture, format: str, **options: Any) -> Any:
    """The averaged denoiser in the fixture's file."""
    return import_file(fixture.folder / "checkpoint", format, **options).model.denoiser


def jax_consistency(fixture: Fixture) -> Iterator[Check]:
    """Network, EDM denoiser and consistency function of openai/consistency_models_cifar10."""
    settings = fixture.settings
    options = {"image_size": settings["image_size"], "attention_at": settings["attn_resolutions"]}
    x, t = fixture.io["x"], fixture.io["t"]
    denoisers = {
        use: _denoiser(fixture, "consistency_cifar10", use=use, **options) for use in ("denoiser", "consistency")
    }
    shown = x / (t[:, None, None, None] ** 2 + 0.25).sqrt()
    yield fixture.compare("F", denoisers["denoiser"].network(shown, t.log() / 4))
    for name, use in (("D", "denoiser"), ("f", "consistency")):
        yield fixture.compare(name, denoisers[use].denoise(x.double(), t.double()))


def jax_progressive(fixture: Fixture) -> Iterator[Check]:
    """Network, predicted image and clipped DDIM of google-research diffusion_distillation."""
    settings, labels = fixture.settings, fixture.classes("y")
    options = {"image_size": settings["image_size"], "steps": 1}
    if "mean_type" in settings:
        options["mean_type"] = settings["mean_type"]
    denoiser = _denoiser(fixture, "diffusion_distillation", **options)
    z, log_snr = fixture.io["z"].double(), fixture.io["logsnr"].double()
    t = denoiser.kernel.time_of_ratio((-log_snr / 2).exp())
    level = denoiser.parameterization.noise_level(t, -log_snr / 2)
    yield fixture.compare("out", denoiser.network(z.float(), level.float(), labels))
    yield fixture.compare("x_0", denoiser.denoise(z, t, labels))
    for name in sorted(fixture.outputs):
        if name.startswith("sample_"):
            steps = int(name.removeprefix("sample_"))
            yield fixture.compare(name, ddim(steps).sample(denoiser, z / denoiser.kernel.prior_scale, labels))
