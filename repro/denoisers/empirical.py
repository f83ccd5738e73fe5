"""The exact denoiser of a training set: the empirical optimum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from repro.denoisers.base import Denoiser
from repro.errors import UserError, unknown
from repro.images import to_float
from repro.kernels import Kernel

if TYPE_CHECKING:
    from repro.data.base import ImageData

__all__ = ["EmpiricalDenoiser"]

_CPU_BYTES = 16 * 2**20
_GPU_BYTES = 2**30


class EmpiricalDenoiser(Denoiser):
    r"""The empirical optimum: posterior mean when the data are exactly the training images (paper, proposition 1).

    .. math:: \hat x_0 = \sum_i w_i y_i, \qquad w = \mathrm{softmax}_i\Big(-\frac{\|x_t/\alpha_t - y_i\|^2}{2 r^2}\Big),
              \quad r = \sigma_t / \alpha_t

    It minimises the training loss of every parameterisation, and what is sampled from it are training images. The
    softmax streams over the images in chunks, two matrix products a chunk. Pixels stay bytes and become floats a chunk
    at a time, so memory beyond ``N d`` bytes is bounded by the chunk. So it is for gradients, which stream over the
    images once more: the Jacobian is a covariance under the same weights,

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
        if not isinstance(images, Tensor):
            if conditional and not images.num_classes:
                raise UserError("the conditional form needs data with classes; these have none")
            self.data, images, labels = images, images.images(), images.labels() if conditional else None
        if images.ndim != 4 or not len(images):
            raise UserError(f"the empirical optimum needs images (N, C, H, W), at least one; got {tuple(images.shape)}")
        if labels is not None and len(labels) != len(images):
            raise UserError(f"{len(labels)} labels for {len(images)} images; give one label an image")
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
        precision = (alpha / sigma).square().expand(len(x), 1, 1, 1).flatten(1)
        mean, evidence = _Posterior.apply(x, precision, labels, self)
        return mean, evidence.squeeze(1)

    def chunks(self, x: Tensor, precision: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        r"""The images a chunk at a time.

        Args:
            x: Noisy images divided by :math:`\alpha_t`, (B, d).
            precision: :math:`1 / r^2`, (B, 1).
            labels: Classes (B,), or None.

        Yields:
            Images :math:`y`, (n, d); energies :math:`e = x y - |y|^2 / 2`, (B, n); logits :math:`e / r^2`, (B, n),
            minus infinity for other classes.
        """
        chunk = self.chunk or self._fitting_chunk(x)
        for start in range(0, len(self), chunk):
            images = to_float(self.stored[start : start + chunk]).to(self.dtype)
            energies = (x @ images.T).sub_(self.half_norms[start : start + chunk])
            logits = energies * precision
            if labels is not None:
                logits.masked_fill_(labels[:, None] != self.labels[start : start + chunk], -torch.inf)
            yield images, energies, logits

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
        for images, _, logits in denoiser.chunks(x, precision, labels):
            higher = torch.maximum(highest, logits.amax(1, keepdim=True))
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
