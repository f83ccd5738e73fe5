"""SSCD's released files as networks: TorchScript programs, and state dicts of both layouts."""

from __future__ import annotations

import copy
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from repro.errors import UserError
from repro.networks.sscd import SSCDNetwork
from repro.released.sscd import layout as layout

__all__ = ["fused", "prepacked", "read_released"]

_PROBE = (2, 3, 64, 64)
_ALIKE = 1e-4
_AT_ONCE = 8
_UNREADABLE = (
    RuntimeError,
    ValueError,
    EOFError,
    OSError,
    LookupError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
)


def read_released(path: Path) -> nn.Module:
    """Returns the network of a released file: normalised images (n, 3, H, W) to unit vectors.

    A state dict (``*.classy.pt``, ``*.torchvision.pt``) is read without executing anything. A TorchScript program is
    loaded, and replaced by our network with its weights when both give the same vectors for random images; a program
    of another layout is run as it is.

    Raises:
        UserError: neither of them, or damaged.
    """
    try:
        if _is_program(path):
            return _of_program(torch.jit.load(path, map_location="cpu").eval())
        return _of_state(torch.load(path, map_location="cpu", weights_only=True))
    except _UNREADABLE as error:
        if isinstance(error, UserError):
            raise UserError(f"{path}: {error}") from error
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is no TorchScript file and no state dict of SSCD ({reason})") from error


def _is_program(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any("/code/" in name for name in file.namelist())


def _of_state(state: Mapping[str, Tensor]) -> SSCDNetwork:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError("this is no state dict: name a file *.torchscript.pt, *.classy.pt or *.torchvision.pt")
    network = SSCDNetwork(**layout.settings(state))
    network.load_state_dict(layout.state_dict(state, network))
    return network.eval().requires_grad_(False)


def _of_program(program: torch.jit.ScriptModule) -> nn.Module:
    probe = torch.randn(_PROBE, generator=torch.Generator().manual_seed(0))
    try:
        network = _of_state(program.state_dict())
        with torch.no_grad():
            alike = torch.allclose(network(probe), program(probe), rtol=0, atol=_ALIKE)
    except (UserError, RuntimeError):
        return program
    return network if alike else program


def fused(network: SSCDNetwork) -> SSCDNetwork:
    """A copy for inference: every batch norm folded into the convolution before it, the stem pooled before its ReLU."""
    network = copy.deepcopy(network).eval()
    backbone = network.backbone
    backbone.act1, backbone.maxpool = nn.Identity(), nn.Sequential(backbone.maxpool, backbone.act1)
    for module in backbone.modules():
        children = dict(module.named_children())
        pairs = [(f"conv{number}", f"bn{number}") for number in (1, 2, 3)] + [("0", "1")]
        for convolution, norm in pairs:
            if isinstance(children.get(norm), nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(children[convolution], children[norm]))
                setattr(module, norm, nn.Identity())
    return network


def prepacked(network: SSCDNetwork, dtype: torch.dtype = torch.float32) -> Callable[[Tensor], Tensor]:
    """Returns the same function for inference on a CPU: each convolution, sum and ReLU in one pass, channels last.

    Args:
        network: A network of bottleneck blocks. Where PyTorch is built without oneDNN, or the processor lacks what
            oneDNN needs for ``dtype``, it is only :func:`fused`.
        dtype: Of the convolutions; pooling and projection stay float32.
    """
    network = fused(network).to(memory_format=torch.channels_last)
    network.backbone.to(dtype)
    if not _has_fused_convolutions(dtype):
        return lambda images: F.normalize(network.head(network.pool(network.backbone(images.to(dtype)).float())))
    backbone = network.backbone
    blocks = [block for stage in (1, 2, 3, 4) for block in backbone.get_submodule(f"layer{stage}")]

    def describe(images: Tensor) -> Tensor:
        vectors = []
        for part in images.split(_AT_ONCE):
            x = part.to(dtype, memory_format=torch.channels_last)
            x = backbone.maxpool(_convolved(x, backbone.conv1, "none"))
            for block in blocks:
                skip = x if block.downsample is None else _convolved(x, block.downsample[0], "none")
                x = _added(_convolved(_convolved(x, block.conv1), block.conv2), block.conv3, skip)
            vectors.append(network.head(network.pool(x.float())))
        return F.normalize(torch.cat(vectors))

    return describe


def _has_fused_convolutions(dtype: torch.dtype) -> bool:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _convolved(x: Tensor, layer: nn.Conv2d, then: str = "relu") -> Tensor:
    shape = (layer.padding, layer.stride, layer.dilation, layer.groups)
    return torch.ops.mkldnn._convolution_pointwise(x, layer.weight, layer.bias, *shape, then, [], None)


def _added(x: Tensor, layer: nn.Conv2d, skip: Tensor) -> Tensor:
    """ReLU of a convolution plus ``skip``, which is overwritten."""
    shape = (layer.padding, layer.stride, layer.dilation, layer.groups)
    add = torch.ops.mkldnn._convolution_pointwise_.binary
    return add(skip, x, layer.weight, layer.bias, *shape, "add", 1.0, "relu", [], None)
