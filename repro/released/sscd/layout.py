"""State dicts of facebookresearch/sscd-copy-detection: ``*.classy.pt`` (ResNet, ResNeXt) and ``*.torchvision.pt``.

The sizes of the network follow from the shapes of its tensors; the power of the pooling, 3, is not stored.

Source of names: https://github.com/facebookresearch/sscd-copy-detection, https://github.com/facebookresearch/ClassyVision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from repro.errors import UserError
from repro.released.table import Entry, translate

__all__ = ["settings", "state_dict"]

_BLOCK = re.compile(r"backbone\.layer(\d)\.(\d+)\.(.+)")
_INSIDE = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4", "conv3": "6"}


def _torchvision(ours: str) -> str:
    return ours.replace("head.", "backbone.fc.")


def _classy(ours: str) -> str:
    """ClassyVision's name of one of our tensors."""
    match = _BLOCK.fullmatch(ours)
    if match is None:
        stem = ours.replace("backbone.conv1", "backbone.initial_block._module.0")
        stem = stem.replace("backbone.bn1", "backbone.initial_block._module.1")
        return stem.replace("head.", "embeddings.1.")
    stage, block, part = int(match[1]) - 1, match[2], match[3]
    layer, _, tensor = part.partition(".")
    if layer in _INSIDE:
        part = f"convolutional_block.{_INSIDE[layer]}.{tensor}"
    elif layer == "bn3":
        part = f"bn.{tensor}"
    return f"backbone.blocks.{stage}.block{stage}-{block}.{part}"


def _naming(foreign: Mapping[str, Tensor]) -> Callable[[str], str]:
    return _torchvision if "backbone.conv1.weight" in foreign else _classy


def settings(foreign: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns arguments of :class:`~repro.networks.sscd.SSCDNetwork` for a released state dict.

    Args:
        foreign: The released tensors by name; only their shapes are read.

    Raises:
        UserError: these are no tensors of SSCD.
    """
    naming = _naming(foreign)

    def shape(ours: str) -> tuple[int, ...]:
        name = naming(ours)
        if name not in foreign:
            raise UserError(f"these are no weights of SSCD: there is no tensor {name!r}")
        return tuple(foreign[name].shape)

    def depth(stage: int) -> int:
        count = 0
        while naming(f"backbone.layer{stage}.{count}.conv1.weight") in foreign:
            count += 1
        return count

    stem, dims = shape("backbone.conv1.weight"), shape("head.weight")[0]
    planes = [shape(f"backbone.layer{stage}.0.conv3.weight")[0] // 4 for stage in range(1, 5)]
    inner, in_group = shape("backbone.layer1.0.conv2.weight")[:2]
    return {
        "channels": stem[1],
        "widths": planes,
        "depths": [depth(stage) for stage in range(1, 5)],
        "groups": inner // in_group,
        "base_width": _base_width(in_group, planes[0]),
        "stem_width": stem[0],
        "dims": dims,
    }


def _base_width(in_group: int, planes: int) -> float:
    """timm's width of a group at 64 planes; a fraction is rounded up by an ulp or so, since timm rounds down."""
    width = 64 * in_group / planes
    return int(width) if width.is_integer() else width * (1 + 1e-12)


def state_dict(foreign: Mapping[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Returns our state dict from a released one.

    Args:
        foreign: The released tensors by name.
        network: The network built from :func:`settings`.

    Raises:
        UserError: missing or unexpected tensors, other shapes.
    """
    naming = _naming(foreign)
    table = [Entry((naming(ours),), (ours,), lambda tensor: (tensor,)) for ours in network.state_dict()]
    return translate(table, foreign, network, "SSCD")
