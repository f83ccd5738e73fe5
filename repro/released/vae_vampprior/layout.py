"""The one-level VAE of jmtomczak/vae_vampprior (``models/VAE.py``), with either prior.

Source of names and settings: https://github.com/jmtomczak/vae_vampprior; Tomczak & Welling 2018, arXiv:1705.07120.
That code leaves the constant log(2 pi) / 2 a dimension out of its log densities; ours keep it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError, unknown
from repro.released.table import Entry, copied, translate

__all__ = ["settings", "state_dict"]

_HIDDEN = 300
_LIKELIHOODS = {"binary": "bernoulli", "gray": "logistic", "continuous": "logistic"}
_PRIORS = {"standard": "standard", "vampprior": "vamp"}


def settings(record: Mapping[str, Any]) -> dict[str, Any]:
    """Describes our network (name, arguments) for the arguments of the VAE class.

    Args:
        record: ``input_size`` (C, H, W), ``z1_size``, ``number_components``, ``input_type``, ``pseudoinputs_mean``,
            ``pseudoinputs_std``, and ``prior`` ("vampprior" when it is not named).

    Returns:
        ``{"name": "VAE", "args": {...}}`` for :class:`repro.networks.vae.VAE`.

    Raises:
        UserError: an unknown input type or prior, or an argument is missing.
    """
    likelihood, prior = record.get("input_type", "binary"), record.get("prior", "vampprior")
    if likelihood not in _LIKELIHOODS:
        raise unknown("input_type of the VampPrior code", str(likelihood), _LIKELIHOODS)
    if prior not in _PRIORS:
        raise unknown("prior of the VampPrior code", str(prior), _PRIORS)
    try:
        channels, height, width = record["input_size"]
        latent = record["z1_size"]
    except KeyError as error:
        raise UserError(f"the record of the VAE lacks {error.args[0]!r}") from error
    return {
        "name": "VAE",
        "args": {
            "image_size": height if height == width else [height, width],
            "channels": channels,
            "latent": latent,
            "hidden": _HIDDEN,
            "likelihood": _LIKELIHOODS[likelihood],
            "prior": _PRIORS[prior],
            "components": record.get("number_components", 500),
            "pseudo_mean": record.get("pseudoinputs_mean", -0.05),
            "pseudo_std": record.get("pseudoinputs_std", 0.01),
        },
    }


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Translates the state dict of a VAE into ours.

    Args:
        foreign: Its tensors by name; the pseudo-inputs of a file are passed over when our prior is standard.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """

    def passed_over(name: str) -> bool:
        return network.pseudo is None and name == "means.linear.weight"

    return translate(list(_entries(network)), foreign, network, "VampPrior", ignored=passed_over)


def _entries(network: nn.Module) -> Iterator[Entry]:
    for theirs, ours in (("q_z_layers", "encoder"), ("p_x_layers", "decoder")):
        for index, layer in enumerate(network.get_submodule(ours)):
            yield from copied(f"{theirs}.{index}.h", f"{ours}.{index}.value", layer.value)
            yield from copied(f"{theirs}.{index}.g", f"{ours}.{index}.gate", layer.gate)
    yield from copied("q_z_mean", "posterior_mean", network.posterior_mean)
    yield from copied("q_z_logvar.linear", "posterior_log_variance", network.posterior_log_variance)
    yield from copied("p_x_mean.linear", "pixel_mean", network.pixel_mean)
    if network.pixel_log_scale is not None:
        yield from copied("p_x_logvar.linear", "pixel_log_scale", network.pixel_log_scale)
    if network.pseudo is not None:
        yield Entry(("means.linear.weight",), ("pseudo",), lambda columns: (columns.T,))
