"""Singular values and rank of a denoiser's Jacobian, of huijieZH/Diffusion-Model-Generalizability."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from parity_checks.edm import edm_denoiser
from parity_checks.fixture import Check, Fixture
from repro.analysis.jacobian import numerical_rank, spectrum

__all__ = ["jacobian_rank"]


def jacobian_rank(fixture: Fixture) -> Iterator[Check]:
    """Spectra at points of a trajectory, and the rank of recorded spectra, with the parts of the root of the energy."""
    denoiser, x = edm_denoiser(fixture).denoiser, fixture.io["x"].double()
    spectra = [spectrum(denoiser, x[i : i + 1], t) for i, t in enumerate(fixture.io["sigma"].double())]
    values, rank = (torch.cat([getattr(each, name) for each in spectra]) for name in ("singular_values", "rank"))
    parts = values.square().cumsum(1).sqrt() / values.norm(dim=1, keepdim=True)
    given = {
        "singular_values": values,
        "rank": rank,
        "jacobian_trace": torch.cat([each.trace for each in spectra]),
        "jacobian_fro": torch.cat([each.frobenius for each in spectra]),
        "synthetic_rank": numerical_rank(fixture.io["synthetic_singular_values"].double()),
        "ratio_at_rank": parts.gather(1, rank[:, None] - 1)[:, 0],
        "ratio_before_rank": parts.gather(1, (rank[:, None] - 2).clamp(min=0))[:, 0],
    }
    yield from fixture.compare_all(given)
