"""Any image classifier of timm as a descriptor."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from repro.descriptors.base import Descriptor
from repro.devices import onto
from repro.errors import UserError, nearest
from repro.records import record_of

__all__ = ["Timm"]


class Timm(Descriptor):
    """Features before the classifier of a timm model, at the size and with the statistics that it was trained with.

    Such a network was trained to tell classes apart, not copies: its threshold means what its false-positive rate on
    your images says (``repro study descriptors --descriptor timm:NAME``). Weights come from timm's own cache or
    download.

    Args:
        model: Name in timm, as ``resnet18.a1_in1k``; ``timm.list_models()`` lists them.
        pretrained: False takes numbered random weights, as a baseline.

    Raises:
        UserError: an unknown model; at the first use, weights that cannot be had.

    Example:
        >>> Timm("resnet18", pretrained=False).name
        'timm:resnet18 (untrained)'
    """

    batch_size: ClassVar[int] = 64
    channels: ClassVar[tuple[int, ...]] = (1, 3)

    def __init__(self, model: str = "resnet18", pretrained: bool = True) -> None:
        import timm

        self.model, self.pretrained = model.removeprefix("timm:"), pretrained
        if not timm.is_model(self.model):
            near = nearest(self.model, timm.list_models())
            hint = f"did you mean {near!r}? " if near else ""
            raise UserError(f"timm has no model {self.model!r}; {hint}timm.list_models() lists them")

    @property
    def name(self) -> str:
        """``timm:NAME``, and whether it is untrained."""
        return f"timm:{self.model}{'' if self.pretrained else ' (untrained)'}"

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the model's name and every weight."""
        digest = hashlib.sha256(json.dumps(record_of(self)["args"], sort_keys=True).encode())
        for name, tensor in sorted(self._network.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def describe(self, images: Tensor, device: torch.device) -> Tensor:
        """Computes features of one batch."""
        config, pixels = self._config, onto(device, images).float() / 255
        pixels = F.interpolate(pixels, config["input_size"][1:], mode="bilinear", antialias=True, align_corners=False)
        mean, std = (onto(device, torch.tensor(config[key]).view(3, 1, 1)) for key in ("mean", "std"))
        return self._network.to(device)((pixels.expand(-1, 3, -1, -1) - mean) / std)

    @property
    def _config(self) -> dict[str, Any]:
        from timm.data import resolve_model_data_config

        return resolve_model_data_config(self._network)

    @functools.cached_property
    def _network(self) -> nn.Module:
        import timm

        logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                network = timm.create_model(self.model, pretrained=self.pretrained, num_classes=0)
        except Exception as error:
            config = timm.get_pretrained_cfg(self.model)
            address = f"https://huggingface.co/{config.hf_hub_id}" if config and config.hf_hub_id else "its address"
            reason = (" ".join(str(error).split()) or type(error).__name__)[:120]
            raise UserError(
                f"cannot get the weights of {self.name} ({reason}); fetch {address} on another machine and bring its "
                "cache (HF_HOME) here, or use random ones: --descriptor.pretrained false"
            ) from error
        return network.eval().requires_grad_(False)

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in self.__dict__.items() if name != "_network"}
