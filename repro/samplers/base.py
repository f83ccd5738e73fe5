"""The contract of samplers: from numbered noise to images, through any denoiser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from repro.denoisers import Denoiser
from repro.devices import onto
from repro.errors import UserError
from repro.kernels import Kernel
from repro.noise import NoiseStream
from repro.registry import Plugin

__all__ = ["Run", "Sampler", "Step", "noised"]

_REVERSIBLE = "take Euler, Heun, RK45, or DPMSolver with --sampler.method singlestep and order 1 or 2"
_INVERSIONS = 3


@dataclass
class Step:
    """One step of a sampler, from time t down to time s.

    Whoever iterates over the steps may put another ``x_s`` in its place: the sampler goes on from there.

    Under a sampler that is ``adaptive`` every image has times of its own; one that has arrived, or whose step is tried
    again with a smaller size, stands still for this step.

    Attributes:
        t: Time of ``x_t``, shape (), or (B,) with a time for each image.
        s: Time of ``x_s``, as t; None when ``x_s`` is the clean image.
        x_t: State before the step, float64 (B, C, H, W).
        x_0: Denoised image at ``x_t``, the first evaluation of the step.
        x_s: State after the step.
    """

    t: Tensor
    s: Tensor | None
    x_t: Tensor
    x_0: Tensor
    x_s: Tensor


@dataclass(frozen=True)
class Run:
    """What a sampler walks through: a denoiser, the labels of the batch, its noise stream, if any.

    Attributes:
        denoiser: The denoiser.
        labels: Class numbers (B,), or None.
        stream: The noise stream, or None.
        clip: Whether denoised images are cut to [-1, 1].
    """

    denoiser: Denoiser
    labels: Tensor | None = None
    stream: NoiseStream | None = None
    clip: bool = False

    @property
    def kernel(self) -> Kernel:
        """The denoiser's kernel."""
        return self.denoiser.kernel

    def denoise(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Evaluates the denoiser once: images (B, C, H, W) at one time, or at one time each, (B, 1, 1, 1)."""
        x_0 = self.denoiser.denoise(x_t, t.flatten() if t.ndim else t, self.labels)
        return x_0.clamp(-1, 1) if self.clip else x_0

    def of_rows(self, rows: Tensor) -> Run:
        """Narrows the run to some images of the batch, without its noise stream."""
        return replace(self, labels=None if self.labels is None else self.labels[rows], stream=None)

    def draw(self, like: Tensor) -> Tensor:
        """Draws the next numbered noise of every image, with the shape, device and dtype of ``like``."""
        assert self.stream is not None
        return onto(like.device, self.stream.draw(like.shape[1:]), like.dtype)


class Sampler(Plugin, ABC):
    r"""Base of the samplers; one of them defines :meth:`walk`.

    The state is float64 whatever the network's dtype, so that steps add no rounding of their own. Samplers call the
    denoiser only through :meth:`Denoiser.denoise`, on the whole batch at one time.

    Attributes:
        stochastic: Whether :meth:`walk` draws further noise; it is numbered too, so images stay reproducible.
        consistency: Whether the denoiser must be a consistency function, which jumps to the image at the end of the
            probability flow; other samplers need the posterior mean.
        adaptive: Whether every image chooses the sizes of its own steps.
        clip: Whether every denoised image is cut to [-1, 1] before the step goes on from it.
        evaluations: Denoiser calls of one :meth:`sample`. A sampler that decides as it goes has those of its latest
            run here, None before the first.
    """

    stochastic: ClassVar[bool] = False
    consistency: ClassVar[bool] = False
    later_arguments: ClassVar[frozenset[str]] = frozenset({"clip"})
    adaptive: bool = False
    clip: bool = False
    evaluations: int | None = None

    def sample(self, denoiser: Denoiser, noise: NoiseStream | Tensor, labels: Tensor | None = None) -> Tensor:
        """Draws images (B, C, H, W) from numbered noise.

        Args:
            denoiser: Any denoiser.
            noise: The noise stream of the wanted seeds, or unit normal starting noise (B, C, H, W) on any device
                (deterministic samplers only).
            labels: Class numbers (B,), or None.

        Returns:
            Images :math:`x_0`, float64 (B, C, H, W), on the denoiser's device (the noise's if that has no tensors).

        Raises:
            UserError: plain noise for a stochastic sampler, noise of another shape than the denoiser's images,
                ``t_end`` outside the kernel's times, or ``ratios`` that do not start where the noise stands.
        """
        for step in self.trajectory(denoiser, noise, labels):
            images = step.x_s
        return images

    @torch.no_grad()
    def trajectory(
        self, denoiser: Denoiser, noise: NoiseStream | Tensor, labels: Tensor | None = None
    ) -> Iterator[Step]:
        """Yields the steps of :meth:`sample`, one by one; the last one's ``x_s`` are the images.

        Replacing ``step.x_s`` steers the walk, which is all that posterior sampling needs.

        Args:
            denoiser: As in :meth:`sample`.
            noise: As in :meth:`sample`.
            labels: As in :meth:`sample`.

        Example:
            >>> from repro import registry
            >>> denoiser = registry.build("denoisers", "GaussianDenoiser", kernel=registry.build("kernels", "EDM"))
            >>> sampler = registry.build("samplers", "Euler", steps=4)
            >>> [round(step.t.item(), 3) for step in sampler.trajectory(denoiser, NoiseStream([0]))]
            [80.0, 9.723, 0.47, 0.002]
        """
        if isinstance(noise, Tensor):
            if self.stochastic:
                raise UserError(f"{type(self).__name__} draws noise at each step; give it a NoiseStream of seeds")
            stream, start = None, noise
        else:
            stream, start = noise, noise.draw(denoiser.image_shape)
        if tuple(start.shape[1:]) != tuple(denoiser.image_shape):
            raise UserError(f"noise is {tuple(start.shape[1:])}, the denoiser's images are {denoiser.image_shape}")
        holder = next(iter([*denoiser.parameters(), *denoiser.buffers()]), start)
        x = onto(holder.device, start, torch.float64) * denoiser.kernel.prior_scale
        self.check_start(denoiser.kernel)
        run = Run(denoiser, None if labels is None else onto(holder.device, labels), stream, self.clip)
        yield from self.walk(run, x)

    def check_start(self, kernel: Kernel) -> None:
        """Raises a UserError when the walk does not start at the noise level of the starting noise."""

    def encode(self, denoiser: Denoiser, images: Tensor, labels: Tensor | None = None) -> Tensor:
        r"""Carries clean images back to the noises that they are drawn from, float64 (B, C, H, W), of unit variance.

        The probability flow is walked from the data to the noise, over the same times as when drawing. A sampler that
        ends by denoising starts from the :math:`x_t` at its last time whose denoised image is the given one.

        Args:
            denoiser: A posterior mean, unconditional or conditional.
            images: Floats, about [-1, 1], shape (B, C, H, W).
            labels: Class numbers, int64 (B,), or None.

        Raises:
            UserError: a sampler that cannot run backwards, or images of another shape than the denoiser's.

        Source: Song et al. 2021, arXiv:2011.13456, appendix D.4; for DDIM, arXiv:2010.02502, section 5.4.

        Example:
            >>> from repro.denoisers import GaussianDenoiser
            >>> from repro.kernels import EDM
            >>> from repro.samplers import Heun
            >>> denoiser, noise = GaussianDenoiser(EDM(), (1, 2, 2)), torch.ones(1, 1, 2, 2)
            >>> sampler = Heun(steps=200)
            >>> bool(((sampler.encode(denoiser, sampler.sample(denoiser, noise)) - noise).abs() < 1e-3).all())
            True
        """
        if tuple(images.shape[1:]) != denoiser.image_shape:
            raise UserError(f"images are {tuple(images.shape[1:])}, the denoiser's are {denoiser.image_shape}")
        self.check_reversible()
        holder = next(iter([*denoiser.parameters(), *denoiser.buffers()]), images)
        x = onto(holder.device, images, torch.float64)
        run = Run(denoiser, None if labels is None else onto(holder.device, labels))
        for step in self.walk_back(run, x):
            x = step.x_s
        return x / denoiser.kernel.prior_scale

    def check_reversible(self) -> None:
        """Raises a UserError when the sampler cannot walk from images to noises."""
        name = type(self).__name__
        if self.stochastic:
            raise UserError(f"{name} draws noise on its way, so an image has no noise of its own; {_REVERSIBLE}")
        if self.consistency or type(self).walk_back is Sampler.walk_back:
            raise UserError(f"{name} cannot walk from images to noises; {_REVERSIBLE}")

    def walk_back(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Carries float64 clean images to ``run.kernel.t_max``, one step at a time; not every sampler can."""
        raise UserError(f"{type(self).__name__} cannot walk from images to noises; {_REVERSIBLE}")

    @abstractmethod
    def walk(self, run: Run, x: Tensor) -> Iterator[Step]:
        """Carries float64 ``x`` at ``run.kernel.t_max`` to images, one step at a time.

        After each yield the walk goes on from the step's ``x_s``, which the caller may have changed.
        """


def noised(run: Run, images: Tensor, t: Tensor) -> Tensor:
    r"""Finds the :math:`x_t` at a small time whose denoised image is the given one, (B, C, H, W).

    Iterates :math:`x \leftarrow x + \alpha_t (x_0 - \hat x_0(x))`; along a direction in which the data have the
    variance :math:`c^2` an iteration leaves :math:`\sigma_t^2 / (\alpha_t^2 c^2 + \sigma_t^2)` of the error.
    """
    alpha = run.kernel.alpha(t)
    x = alpha * images
    for _ in range(_INVERSIONS):
        x = x + alpha * (images - run.denoise(x, t))
    return x
