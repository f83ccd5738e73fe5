"""SSCD's released files as networks: TorchScript programs, and state dicts of both layouts."""

from __future__ import annotations

import copy
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from repro.checkpoints.layouts import sscd as layout
from repro.errors import UserError
from repro.networks.sscd import SSCDNetwork

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
    """The network of a released file: normalised images (n, 3, H, W) to unit vectors.

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
    """A copy for inference, with every batch norm folded into the convolution before it."""
    network = copy.deepcopy(network).eval()
    for module in network.backbone.modules():
        children = dict(module.named_children())
        pairs = [(f"conv{place}", f"bn{place}") for place in (1, 2, 3)] + [("0", "1")]
        for convolution, norm in pairs:
            if isinstance(children.get(norm), nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(children[convolution], children[norm]))
                setattr(module, norm, nn.Identity())
    return network


def prepacked(network: SSCDNetwork) -> Callable[[Tensor], Tensor]:
    """The same function for inference on a CPU, its weights laid out once as the convolutions want them."""
    network = fused(network)
    if not torch.backends.mkldnn.is_available():
        return network
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from torch.utils.mkldnn import to_mkldnn

        backbone = to_mkldnn(network.backbone)

    def describe(images: Tensor) -> Tensor:
        maps = (backbone(part.to_mkldnn()).to_dense() for part in images.split(_AT_ONCE))
        return F.normalize(torch.cat([network.head(network.pool(each)) for each in maps]))

    return describe
