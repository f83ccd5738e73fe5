"""Generators and discriminators of kwotsin/mimicry, their losses and their spectral norms."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from parity_checks.fixture import Check, Fixture
from repro.networks import gan as networks
from repro.released.mimicry import layout as layout

__all__ = ["gan"]

_LAYERS = {"c1": "conv1", "c2": "conv2", "c_sc": "shortcut"}


def gan(fixture: Fixture) -> Iterator[Check]:
    """Images, logits, losses and the gradient penalty in evaluation, then u, v and logits in training mode."""
    generator = _network(fixture, "Generator", "weights")
    discriminator = _network(fixture, "Discriminator", "weights_discriminator")
    x = fixture.io["x"]
    images = generator(fixture.io["z"])
    real, fake = discriminator(x), discriminator(images)
    given = {"images": images, "logits": real[:, None], "logits_fake": fake[:, None]}
    for name, loss in {"ns": networks.LOSSES["nonsaturating"], **networks.LOSSES}.items():
        given |= {f"loss_D_{name}": loss.discriminator(real, fake), f"loss_G_{name}": loss.generator(fake)}
    if "gp_alpha" in fixture.io:
        with torch.enable_grad():
            mix = fixture.io["gp_alpha"].flatten()
            given["gradient_penalty"] = networks.gradient_penalty(discriminator, x, images, mix)
    given |= {
        name: _layer(discriminator, name[6:]).sigma() for name in sorted(fixture.outputs) if name.startswith("sigma_")
    }
    yield from fixture.compare_all(given)
    discriminator.train()
    first, second = discriminator(x), discriminator(x)
    trained = {"logits_train_first": first[:, None], "logits_train_second": second[:, None]}
    trained["images_train"] = generator.train()(fixture.io["z"])
    for name in sorted(fixture.outputs):
        if name.startswith(("weight_u_after_two_train_", "weight_v_after_two_train_")):
            trained[name] = _vector(_layer(discriminator, name[25:]), name[7])
    yield from fixture.compare_all(trained)


def _network(fixture: Fixture, part: str, file: str) -> nn.Module:
    (name,) = (name for name in fixture.meta["class"] if part in name)
    settings = layout.settings(fixture.settings | {"class": name})
    network = getattr(networks, settings["name"])(**settings["args"])
    network.load_state_dict(layout.state_dict(fixture.weights(file), network))
    return network.eval()


def _layer(discriminator: nn.Module, name: str) -> nn.Module:
    """The layer that the reference calls ``block1_c1`` or, after the last block, ``l5``."""
    block, _, layer = name.partition("_")
    if not layer:
        return discriminator.head
    return discriminator.blocks[int(block.removeprefix("block")) - 1].get_submodule(_LAYERS[layer])


def _vector(layer: nn.Module, name: str) -> Tensor:
    return getattr(layer, name).clone()
