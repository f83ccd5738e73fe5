"""The VAE of jmtomczak/vae_vampprior with both priors."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from parity_checks.fixture import Check, Fixture
from repro.networks.vae import VAE
from repro.released.vae_vampprior import layout as layout

__all__ = ["vae"]


def vae(fixture: Fixture) -> Iterator[Check]:
    """Posterior, decoder, pseudo-inputs, log priors and the terms of the loss; that code leaves out log(2 pi) / 2."""
    x, z, eps = (fixture.io[name] for name in ("x", "z", "eps"))
    stated = re.search(r"([0-9.]+) ?\* ?KL", fixture.meta["tensors"]["loss_vampprior"]["meaning"])
    beta = float(stated[1]) if stated else 1.0
    for prior in ("vampprior", "standard"):
        network = VAE(**layout.settings(fixture.settings | {"prior": prior})["args"]).eval()
        network.load_state_dict(layout.state_dict(fixture.weights(), network))
        reconstruction, divergence = network.terms(x, eps)
        given = {
            "log_p_z": network.log_prior(z) + z.shape[1] / 2 * math.log(2 * math.pi),
            "loss": -reconstruction + beta * divergence,
            "RE": reconstruction,
            "KL": divergence,
        }
        yield from fixture.compare_all({f"{name}_{prior}": tensor for name, tensor in given.items()})
        if prior == "vampprior":
            mean, log_variance = network.posterior(x)
            z_q = mean + eps * (log_variance / 2).exp()
            x_mean, x_log_scale = network.decode(z_q)
            pseudo_mean, pseudo_log_variance = network.posterior(network.pseudo_inputs())
            given = {"z_q": z_q, "z_q_mean": mean, "z_q_logvar": log_variance, "x_mean": x_mean}
            given |= {} if x_log_scale is None else {"x_logvar": x_log_scale}
            given |= {"pseudo_inputs": network.pseudo_inputs(), "pseudo_mean": pseudo_mean}
            yield from fixture.compare_all(given | {"pseudo_logvar": pseudo_log_variance})
