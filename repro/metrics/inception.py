"""The Inception network of FID and KID, as torchmetrics has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repro.descriptors.base import check_images
from repro.errors import UserError

__all__ = ["Inception"]

_FILE = "weights-inception-2015-12-05-6726825d.pth"
_ADDRESS = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{_FILE}"
_BATCH = 64


class Inception:
    """Features of uint8 images from the network that FID is defined by.

    It is no ``nn.Module``: inside a metric or a model the network is in no state dict, average or parameter count, and
    it never leaves evaluation mode. Nothing is downloaded; the network is built at the first use.

    Args:
        weights: File of the weights; by default ``weights-inception-2015-12-05-6726825d.pth`` in PyTorch's cache.

    Raises:
        UserError: at the first use, torch-fidelity is not installed, or the weights are not there or damaged.
    """

    def __init__(self, weights: str | None = None) -> None:
        self.weights = Path(weights) if weights else Path(torch.hub.get_dir()) / "checkpoints" / _FILE
        self._network: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"weights": self.weights, "_network": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> Inception:
        return self

    def check(self) -> None:
        """Raises a UserError unless torch-fidelity and the weights are there."""
        from torchmetrics.utilities.imports import _TORCH_FIDELITY_AVAILABLE

        if not _TORCH_FIDELITY_AVAILABLE:
            raise UserError(
                "FID and KID need torch-fidelity: pip install torch-fidelity; without it, FrechetDistance and "
                "KernelDistance take the descriptor's features"
            )
        if not self.weights.is_file():
            raise UserError(
                f"there are no Inception weights at {self.weights}; put the file from {_ADDRESS} there, or take "
                "FrechetDistance or KernelDistance, which use the descriptor's features"
            )

    def _build(self) -> Any:
        from torchmetrics.image.fid import NoTrainInceptionV3

        self.check()
        try:
            network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(self.weights))
        except Exception as error:
            reason = " ".join(str(error).split())[:100]
            raise UserError(
                f"{self.weights} holds no Inception weights ({reason}); take the file from {_ADDRESS}"
            ) from error
        return network.requires_grad_(False)

    @torch.no_grad()
    def features(self, images: Tensor, device: str | torch.device = "cpu") -> Tensor:
        """Computes features of images, shape (n, 2048), on the device; grey images count as three equal channels.

        Args:
            images: uint8, shape (n, C, H, W) with C of 1 or 3.
            device: Where the network runs.
        """
        check_images(images)
        if images.shape[1] not in (1, 3):
            raise UserError(f"images have {images.shape[1]} channels; Inception takes 1 or 3")
        self._network = (self._network or self._build()).to(device)
        colour = images.expand(-1, 3, -1, -1)
        return torch.cat([self._network(part.to(device)).flatten(1) for part in colour.split(_BATCH)])
