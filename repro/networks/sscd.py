"""The network of SSCD: a residual network of timm, generalised mean over places, one linear layer, unit length."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from repro.errors import UserError
from repro.networks.base import one_of

__all__ = ["GeM", "SSCDNetwork"]

_BLOCKS = {"bottleneck": "Bottleneck", "basic": "BasicBlock"}
_STEMS = {"published": (7, 2), "half": (3, 2), "full": (3, 1)}


class GeM(nn.Module):
    r"""Generalised mean over places: 1 is the mean, larger powers move towards the largest value.

    .. math:: y_c = \Bigl( \frac{1}{HW} \sum_{h, w} \max(x_{chw}, 10^{-6})^p \Bigr)^{1/p}

    Args:
        power: p > 0; a constant, not trained.

    Source: Radenovic, Tolias & Chum 2018, arXiv:1711.02512, section 3.2.

    Example:
        >>> import torch
        >>> GeM(3.0)(torch.tensor([[[[1.0, 2.0]]]]))
        tensor([[1.6510]])
    """

    def __init__(self, power: float = 3.0) -> None:
        super().__init__()
        self.power = power

    def forward(self, x: Tensor) -> Tensor:
        """Computes means (B, C) of maps (B, C, H, W)."""
        return x.clamp(min=1e-6).pow(self.power).mean((2, 3)).pow(1 / self.power)


class SSCDNetwork(nn.Module):
    """Images to descriptors of unit length.

    The defaults are the published ResNet-50 with 512 dimensions, 24.6 million parameters. The ResNeXt-101 32x4d of
    ``sscd_disc_large`` has ``depths=(3, 4, 23, 3), groups=32, base_width=4, dims=1024``.

    Args:
        channels: Channels of the images.
        widths: Planes of the four stages; a bottleneck block puts out four times as many channels.
        depths: Blocks in each stage.
        block: "bottleneck" or "basic".
        groups: Groups of the 3 x 3 convolutions in a bottleneck.
        base_width: Their channels in a group for 64 planes; in proportion for others.
        stem: "published": a 7 x 7 convolution of stride 2 and pooling, four times smaller; "half": a 3 x 3 convolution
            of stride 2; "full": one of stride 1, for small images.
        stem_width: Channels after it, even.
        dims: Length of the descriptor.
        power: Of the generalised mean.

    Raises:
        UserError: sizes that do not fit, an unknown block or stem.

    Source: Pizzi et al. 2022, arXiv:2202.10261, section 4.

    Example:
        >>> import torch
        >>> network = SSCDNetwork(1, widths=(4, 4, 4, 4), depths=(1, 1, 1, 1), stem="full", stem_width=4, dims=8)
        >>> network(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 8])
    """

    def __init__(
        self,
        channels: int = 3,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        block: str = "bottleneck",
        groups: int = 1,
        base_width: float = 64,
        stem: str = "published",
        stem_width: int = 64,
        dims: int = 512,
        power: float = 3.0,
    ) -> None:
        super().__init__()
        kind = _BLOCKS[one_of("block of SSCDNetwork", block, _BLOCKS)]
        size, stride = _STEMS[one_of("stem of SSCDNetwork", stem, _STEMS)]
        _check_sizes(widths, depths, stem_width)
        from timm.models import resnet

        self.backbone = resnet.ResNet(
            getattr(resnet, kind),
            tuple(depths),
            num_classes=0,
            in_chans=channels,
            global_pool="",
            cardinality=groups,
            base_width=base_width,
            stem_width=stem_width // 2,
            stem_type="deep",
            channels=tuple(widths),
        )
        self.backbone.conv1 = nn.Conv2d(channels, stem_width, size, stride, size // 2, bias=False)
        nn.init.kaiming_normal_(self.backbone.conv1.weight, mode="fan_out", nonlinearity="relu")
        if stem != "published":
            self.backbone.maxpool = nn.Identity()
        self.pool = GeM(power)
        self.head = nn.Linear(self.backbone.num_features, dims)

    def embed(self, images: Tensor) -> Tensor:
        """Computes descriptors before they are brought to unit length, (B, dims), of images (B, C, H, W)."""
        return self.head(self.pool(self.backbone(images)))

    def forward(self, images: Tensor) -> Tensor:
        """Computes descriptors of unit length, (B, dims), of images (B, C, H, W)."""
        return F.normalize(self.embed(images))


def _check_sizes(widths: Sequence[int], depths: Sequence[int], stem_width: int) -> None:
    for name, sizes in (("widths", widths), ("depths", depths)):
        if len(sizes) != 4 or min(sizes) < 1:
            raise UserError(f"{name} of SSCDNetwork is {list(sizes)}; give four numbers, each at least 1")
    if stem_width < 2 or stem_width % 2:
        raise UserError(f"stem_width of SSCDNetwork is {stem_width}; give an even number")
