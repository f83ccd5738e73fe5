"""The U-Net of openai/guided-diffusion and openai/improved-diffusion (``unet.py``, class UNetModel).

Source of names and settings: https://github.com/openai/guided-diffusion; Dhariwal and Nichol 2021, arXiv:2105.05233;
https://github.com/openai/improved-diffusion; Nichol and Dhariwal 2021, arXiv:2102.09672.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from repro.networks.layers.blocks import Attention
from repro.released import openai_unets

__all__ = ["legacy_state_dict", "state_dict"]

state_dict = openai_unets.state_dict


def legacy_state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """As :func:`state_dict`, for attention whose heads come before query, key and value.

    Args:
        foreign: Tensors by name.
        network: The network built from :func:`repro.released.openai_unets.settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    ours = state_dict(foreign, network)
    for name, layer in network.named_modules():
        if isinstance(layer, Attention):
            for part in (f"{name}.qkv.weight", f"{name}.qkv.bias"):
                ours[part] = ours[part].unflatten(0, (layer.heads, 3, -1)).transpose(0, 1).flatten(0, 2)
    return ours
