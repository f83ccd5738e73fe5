"""Training of copy-detection descriptors: views of one image come together, different images spread out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from repro.errors import check_above, check_at_least
from repro.images import to_float
from repro.models.descriptor import CopyDescriptor
from repro.networks.sscd import SSCDNetwork
from repro.training.base import LossModule
from repro.training.optimization import Average, Optimization
from repro.training.views import checked, edited

__all__ = ["CopyDetection", "entropy_losses", "info_nce_losses"]


class CopyDetection(LossModule):
    r"""A descriptor trained without labels, as SSCD is.

    Each image of a batch gives two edited views, with descriptors :math:`z_i` of unit length. With p(i) the other
    view of the same image, and j over all other views of the batch (of all processes):

    .. math:: L_i = -\log \frac{\exp(\langle z_i, z_{p(i)} \rangle / \tau)}
        {\sum_{j \ne i} \exp(\langle z_i, z_j \rangle / \tau)} - \lambda \log \min_{j \ne i, p(i)} \| z_i - z_j \|

    Images go into the network in [-1, 1] at their own size. What comes of it is a descriptor:
    ``--descriptor SmallSSCD --descriptor.weights RUN``. It draws nothing.

    Args:
        image_size: Height and width of the images.
        channels: Their channels.
        widths: Planes of the four stages, as of :class:`~repro.networks.sscd.SSCDNetwork`.
        depths: Blocks of each stage.
        block: "bottleneck" or "basic".
        stem: "published", "half" or "full", from large images to small ones.
        stem_width: Channels after the stem, even.
        dims: Length of the descriptor.
        temperature: :math:`\tau`.
        entropy: :math:`\lambda`, the weight of spreading out.
        views: How views are edited, by name; see :data:`repro.training.views.DEFAULTS`.
        optimizer: Name of a class in ``torch.optim``.
        lr: Learning rate, after warm-up.
        optimizer_args: Further arguments of the optimiser.
        lr_warmup: Images over which the learning rate rises linearly from 0.
        ema_halflife: Half-life of the averaged weights, in images; 0 samples with the weights of the last step.
        ema_rampup: Early in training the half-life is at most this part of the images seen; null for none.
        nonfinite_limit: Steps with a non-finite gradient that are skipped and counted before training stops.
        channels_last: Keep images and convolution weights channels-last in memory.
        seed: Seed of every random draw in training.

    Raises:
        UserError: a size, weight or view outside its range.

    Source: Pizzi et al. 2022, arXiv:2202.10261, equations 1 to 3.
    """

    averaged: ClassVar[str] = "network"
    trained: SSCDNetwork
    model: CopyDescriptor

    def __init__(
        self,
        image_size: int | None = None,
        channels: int | None = None,
        widths: Sequence[int] = (64, 128, 256, 512),
        depths: Sequence[int] = (3, 4, 6, 3),
        block: str = "bottleneck",
        stem: str = "full",
        stem_width: int = 64,
        dims: int = 512,
        temperature: float = 0.05,
        entropy: float = 30.0,
        views: dict[str, float] | None = None,
        optimizer: str = "Adam",
        lr: float = 2e-4,
        optimizer_args: dict[str, Any] | None = None,
        lr_warmup: int = 0,
        ema_halflife: float = 500_000,
        ema_rampup: float | None = 0.05,
        nonfinite_limit: int = 10,
        channels_last: bool = False,
        seed: int = 0,
    ) -> None:
        check_above(0, temperature=temperature)
        check_at_least(0, entropy=entropy)
        model = CopyDescriptor(image_size, channels, widths, depths, block, stem, stem_width, dims)
        super().__init__(
            model,
            copy.deepcopy(model.network),
            Optimization(optimizer, lr, optimizer_args, lr_warmup, nonfinite_limit),
            Average(ema_halflife, ema_rampup),
            channels_last,
            seed,
        )
        self.temperature, self.entropy, self.views = temperature, entropy, checked(views)

    def loss(self, x_0: Tensor, labels: Tensor | None) -> Tensor:
        """Computes the training loss of each image over two fresh views, shape (B,)."""
        return self.loss_of(self.trained, x_0)

    def loss_of(self, network: SSCDNetwork, x_0: Tensor) -> Tensor:
        """Loss of each image under a network, shape (B,); in training among the views of all processes."""
        count = len(x_0)
        vectors = network(edited(torch.cat([x_0, x_0]), self.views))
        pool, start = vectors, 0
        if self.training and self._trainer is not None and self.trainer.world_size > 1:
            pool, start = self.all_gather(vectors, sync_grads=True).flatten(0, 1), self.global_rank * len(vectors)
        own = torch.arange(start, start + len(vectors), device=x_0.device)
        other = torch.cat([own[count:], own[:count]])
        losses = info_nce_losses(vectors, pool, own, other, self.temperature)
        losses = losses + self.entropy * entropy_losses(vectors, pool, own, other)
        return losses.unflatten(0, (2, count)).mean(0)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Loss of the averaged weights on held-out images, at fixed views."""
        images, _ = batch
        with torch.random.fork_rng():
            torch.manual_seed(batch_idx)
            loss = self.loss_of(self.average, to_float(images)).mean()
        self.log("val/loss", loss, prog_bar=True, sync_dist=True, batch_size=len(images))


def info_nce_losses(vectors: Tensor, pool: Tensor, own: Tensor, other: Tensor, temperature: float) -> Tensor:
    r"""Computes the cross-entropy of finding the other view among all but the vector itself.

    .. math:: -\log \frac{\exp(\langle z_i, z_{p(i)} \rangle / \tau)}
        {\sum_{j \ne i} \exp(\langle z_i, z_j \rangle / \tau)}

    Args:
        vectors: Unit vectors :math:`z_i`, (n, d).
        pool: All unit vectors :math:`z_j`, (m, d).
        own: Place of each :math:`z_i` in the pool, (n,).
        other: Place of its other view, (n,).
        temperature: :math:`\tau`.

    Returns:
        Losses (n,).
    """
    similarity = (vectors @ pool.T / temperature).scatter(1, own[:, None], -torch.inf)
    return F.cross_entropy(similarity, other, reduction="none")


def entropy_losses(vectors: Tensor, pool: Tensor, own: Tensor, other: Tensor) -> Tensor:
    r"""Computes the kozachenko and Leonenko's term: :math:`-\log \min_{j \ne i, p(i)} \| z_i - z_j \|`, shape (n,).

    Arguments are those of :func:`info_nce_losses`. Its mean estimates minus the entropy of the descriptors, up to
    constants.
    """
    hidden = torch.stack([own, other], dim=1)
    nearest = (vectors @ pool.T).detach().scatter(1, hidden, -torch.inf).argmax(1)
    return -(vectors - pool[nearest]).norm(dim=1).clamp(min=1e-8).log()
