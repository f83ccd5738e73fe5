"""The exact denoiser of a training set: the empirical optimum."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from repro.denoisers.base import Denoiser, training_set
from repro.devices import onto
from repro.errors import UserError, unknown
from repro.images import to_float
from repro.kernels import Kernel

if TYPE_CHECKING:
    from repro.data.base import ImageData

__all__ = ["EmpiricalDenoiser"]

_CPU_BYTES = 16 * 2**20
_GPU_BYTES = 2**30
_TILE = 128  # images turned into floats at a time: they stay in the cache from one step to the next
_FEW = 1 / 4


class EmpiricalDenoiser(Denoiser):
    r"""The empirical optimum: posterior mean when the data are exactly the training images (paper, proposition 1).

    .. math:: \hat x_0 = \sum_i w_i y_i, \qquad w = \mathrm{softmax}_i\Big(-\frac{\|x_t/\alpha_t - y_i\|^2}{2 r^2}\Big),
              \quad r = \sigma_t / \alpha_t

    It minimises the training loss of every parameterisation, and what is sampled from it are training images. The
    softmax streams over the images in chunks, two matrix products a chunk. Pixels stay bytes and become floats a chunk
    at a time, so memory beyond ``N d`` bytes is bounded by the chunk. Images whose weights together are below the last
    bit of the sum of all are left out of the second product; in float64 a product in float32, whose error is bounded,
    finds them first, so that at low noise nearly all work is that one product. Gradients stream over all images once
    more: the Jacobian is a covariance under the same weights,

    .. math:: \frac{\partial \hat x_0}{\partial x_t}
              = \frac{1}{\alpha_t r^2} \sum_i w_i (y_i - \hat x_0)(y_i - \hat x_0)^T .

    With labels, only the images of the label's class take part.

    Args:
        images: The training set: a data plug-in, or a tensor, uint8 (N, C, H, W) or floats in [-1, 1].
        kernel: The perturbation kernel.
        labels: Class of each image, int64 (N,), for the conditional form on a tensor.
        conditional: Take the labels of the data plug-in, for the conditional form.
        chunk: Images a step of the stream; by default what fits in 16 MiB on a CPU, 1 GiB on a GPU.
        precision: Of the arithmetic; float64 is right from ratio 0.002 to 80, float32 only above about 0.1.

    Raises:
        UserError: no image, labels of another length, classes asked of data that have none, or an unknown precision.

    Example:
        >>> from repro.kernels import EDM
        >>> images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
        >>> best = EmpiricalDenoiser(images, EDM())
        >>> best.denoise(torch.full((1, 1, 1, 1), 0.1, dtype=torch.float64), torch.tensor(0.05)).item()
        1.0
    """

    def __init__(
        self,
        images: ImageData | Tensor,
        kernel: Kernel,
        labels: Tensor | None = None,
        conditional: bool = False,
        chunk: int | None = None,
        precision: Literal["float64", "float32"] = "float64",
    ) -> None:
        super().__init__()
        self.data, images, labels = training_set(images, labels, conditional)
        if precision not in ("float64", "float32"):
            raise unknown("precision", precision, ("float64", "float32"))
        if chunk is not None and chunk < 1:
            raise UserError(f"chunk is {chunk}; give at least 1 image, or leave it out")
        self.kernel, self.image_shape, self.chunk = kernel, tuple(images.shape[1:]), chunk
        self.dtype = {"float64": torch.float64, "float32": torch.float32}[precision]
        self.num_classes = 0 if labels is None else int(labels.max()) + 1
        stored = images.flatten(1) if images.dtype == torch.uint8 else images.flatten(1).to(self.dtype)
        self.register_buffer("stored", stored, persistent=False)
        norms = [to_float(part).double().square().sum(1) / 2 for part in stored.split(256)]
        self.register_buffer("half_norms", torch.cat(norms).to(self.dtype), persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def __len__(self) -> int:
        """N: how many images there are."""
        return len(self.stored)

    @property
    def points(self) -> Tensor:
        """The images as points in [-1, 1], in the precision of the arithmetic, shape (N, d)."""
        return to_float(self.stored).to(self.dtype)

    def denoise(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        mean, _ = self.posterior(x_t, t, labels)
        return mean.view(x_t.shape).to(x_t.dtype)

    def posterior(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Posterior mean, (B, d), and :math:`\log \sum_i \exp(-\|x_t/\alpha_t - y_i\|^2 / 2 r^2)`, (B,)."""
        self._check_labels(labels)
        alpha, sigma = self.scales(x_t.to(self.dtype), t)
        x = (x_t.to(self.dtype) / alpha).flatten(1)
        precision = onto(x.device, (alpha / sigma).square()).expand(len(x), 1, 1, 1).flatten(1)
        mean, evidence = _Posterior.apply(x, precision, labels, self)
        return mean, evidence.squeeze(1)

    def chunks(self, x: Tensor, precision: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        r"""Yields the images a chunk at a time, as points (chunk, d).

        Args:
            x: Noisy images divided by :math:`\alpha_t`, (B, d).
            precision: :math:`1 / r^2`, (B, 1).
            labels: Classes (B,), or None.

        Yields:
            Images :math:`y`, (n, d); energies :math:`e = x y - |y|^2 / 2`, (B, n); logits :math:`e / r^2`, (B, n),
            minus infinity for other classes.
        """
        chunk = self.chunk or self._fitting_chunk(x)
        scratch = x.new_empty(min(chunk, len(self)), x.shape[1])
        for start in range(0, len(self), chunk):
            images = _as_points(self.stored[start : start + chunk], scratch)
            yield images, *self._logits(x, precision, labels, images, slice(start, start + chunk))

    def significant_chunks(
        self, x: Tensor, precision: Tensor, labels: Tensor | None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        r"""Yields the images a chunk at a time, leaving out those too far away to change the sum's last bit.

        An image is left out when for every row its weight is below :math:`\epsilon / 2 N` of a weight seen before:
        all that are left out weigh less than half a unit in the last place of the sum.

        Args:
            x: Noisy images divided by :math:`\alpha_t`, (B, d).
            precision: :math:`1 / r^2`, (B, 1).
            labels: Classes (B,), or None.

        Yields:
            Images :math:`y`, (m, d); logits, (B, m); the largest logit of each row so far, (B, 1).
        """
        chunk = self.chunk or self._fitting_chunk(x)
        margin = math.log(2 * len(self) / torch.finfo(self.dtype).eps)
        highest = x.new_full((len(x), 1), -torch.inf)
        scratch = x.new_empty(min(chunk, len(self)), x.shape[1])
        screen = _Screen(self, x, precision, labels, margin) if self.dtype == torch.float64 else None
        for start in range(0, len(self), chunk):
            rows = torch.arange(start, min(start + chunk, len(self)), device=x.device)
            if screen is not None and screen.pays:
                rows = rows[screen.may_matter(rows)]
                if not len(rows):
                    continue
            images = _as_points(
                self.stored[start : start + chunk] if len(rows) == chunk else self.stored[rows], scratch
            )
            _, logits = self._logits(x, precision, labels, images, rows)
            highest = torch.maximum(highest, logits.amax(1, keepdim=True))
            near = (logits > highest - margin).any(0).nonzero().squeeze(1)
            if len(near) <= _FEW * len(images):
                images, logits = images[near], logits[:, near]
            yield images, logits, highest

    def _logits(
        self, x: Tensor, precision: Tensor, labels: Tensor | None, images: Tensor, rows: Tensor | slice
    ) -> tuple[Tensor, Tensor]:
        """Energies and logits of some images, (B, n) each."""
        energies = (x @ images.T).sub_(self.half_norms[rows])
        logits = energies * precision
        if labels is not None:
            logits.masked_fill_(labels[:, None] != self.labels[rows], -torch.inf)
        return energies, logits

    def _fitting_chunk(self, x: Tensor) -> int:
        room = _CPU_BYTES if x.device.type == "cpu" else _GPU_BYTES
        return max(64, room // (x.element_size() * (x.shape[1] + 2 * len(x))))

    def _check_labels(self, labels: Tensor | None) -> None:
        if labels is None:
            return
        if self.labels is None:
            raise UserError("labels were given to an empirical optimum built without the labels of its images")
        strange = labels[~torch.isin(labels, self.labels)]
        if len(strange):
            raise UserError(
                f"no training image has label {int(strange[0])}; labels go from 0 to {self.num_classes - 1}"
            )


def _as_points(stored: Tensor, scratch: Tensor) -> Tensor:
    """Stored images as points in [-1, 1], in the memory and the dtype of ``scratch``."""
    points = scratch[: len(stored)]
    for part, to in zip(stored.split(_TILE), points.split(_TILE), strict=True):
        to.copy_(to_float(part))
    return points


class _Screen:
    """Finds the images that may matter from products in float32, of which the rounding error is bounded.

    Attributes:
        pays: Whether it left out most images so far; when it does not, the float64 product alone is cheaper.
    """

    def __init__(
        self, denoiser: EmpiricalDenoiser, x: Tensor, precision: Tensor, labels: Tensor | None, margin: float
    ) -> None:
        self.denoiser, self.x, self.precision, self.labels, self.margin = denoiser, x.float(), precision, labels, margin
        self.scratch = self.x.new_empty(0)
        self.pays = torch.get_float32_matmul_precision() == "highest" and not x.is_cuda
        self.highest = x.new_full((len(x), 1), -torch.inf)
        # |fl(<x, y>) - <x, y>| <= (d + 2) u |x| |y|, with a unit more for rounding x; |y| <= sqrt(2 half_norms)
        self.error = (x.shape[1] + 4) * 2.0**-24 * x.norm(dim=1, keepdim=True) * precision

    def may_matter(self, rows: Tensor) -> Tensor:
        """Which of some images may weigh something for any row, bool (n,).

        Args:
            rows: Consecutive numbers of images, (n,).
        """
        stored, half_norms = (each[rows[0] : rows[-1] + 1] for each in (self.denoiser.stored, self.denoiser.half_norms))
        if len(self.scratch) < len(stored):
            self.scratch = self.x.new_empty(len(stored), self.x.shape[1])
        points = _as_points(stored, self.scratch)
        logits = (self.x @ points.T).double().sub_(half_norms).mul_(self.precision)
        error = self.error * (2 * half_norms).sqrt()
        if self.labels is not None:
            logits.masked_fill_(self.labels[:, None] != self.denoiser.labels[rows], -torch.inf)
        self.highest = torch.maximum(self.highest, (logits - error).amax(1, keepdim=True))
        keep = (logits + error > self.highest - self.margin).any(0)
        self.pays = int(keep.sum()) <= _FEW * len(keep)
        return keep


class _Posterior(torch.autograd.Function):
    """Posterior mean and evidence, and their gradients, each by one pass over the images.

    Nothing of the size of the training set is kept between the two: the weights come again from the largest logit and
    their sum.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, precision: Tensor, labels: Tensor | None, denoiser: EmpiricalDenoiser
    ) -> tuple[Tensor, Tensor]:
        highest = x.new_full((len(x), 1), -torch.inf)
        total, mean = x.new_zeros(len(x), 1), torch.zeros_like(x)
        for images, logits, higher in denoiser.significant_chunks(x, precision, labels):
            weights = logits.sub_(higher.nan_to_num(neginf=0.0)).exp_()
            shrink = (highest - higher.nan_to_num(neginf=0.0)).exp()
            total = total * shrink + weights.sum(1, keepdim=True)
            mean = torch.addmm(mean * shrink, weights, images)
            highest = higher
        mean /= total
        ctx.save_for_backward(x, precision, highest, total, mean)
        ctx.labels, ctx.denoiser = labels, denoiser
        return mean, total.log() + highest - precision * x.square().sum(1, keepdim=True) / 2

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_evidence: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        """With s_i = <y_i - mean, g> for an incoming gradient g, J^T g is the sum of w_i s_i (y_i - mean) / r^2."""
        if torch.is_grad_enabled():
            raise NotImplementedError("the empirical optimum has no second derivatives; leave out create_graph")
        x, precision, highest, total, mean = ctx.saved_tensors
        of_x, of_precision = torch.zeros_like(x), -of_evidence * x.square().sum(1, keepdim=True) / 2
        centre = (mean * of_mean).sum(1, keepdim=True)
        for images, energies, logits in ctx.denoiser.chunks(x, precision, ctx.labels):
            weights = logits.sub_(highest).exp_().div_(total)
            pulls = (of_mean @ images.T).sub_(centre).mul_(weights)
            of_x += pulls @ images - pulls.sum(1, keepdim=True) * mean
            of_precision += energies.mul_(pulls.add_(weights * of_evidence)).sum(1, keepdim=True)
        return precision * (of_x + of_evidence * (mean - x)), of_precision, None, None
