"""Laws of denoisers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repro.denoisers import Denoiser
from repro.testing.devices import FakeDevice, Waits

__all__ = ["check_denoiser", "check_device"]


def check_denoiser(denoiser: Denoiser, labels: Tensor | None = None, batch_tolerance: float = 0.0) -> None:
    """Checks what samplers take for granted of a denoiser.

    Results have the shape and dtype of the images; one time for all is the same as one for each; noise and score
    follow from the clean image; an image does not depend on its batch mates; same input, same output.

    Args:
        denoiser: Any denoiser, on the CPU.
        labels: Class of each of 5 images, for a conditional denoiser.
        batch_tolerance: How far batch mates may move an image, relative to its scale: 0 demands the same bits; matrix
            products round differently for different batches, so networks want about 1e-5 (float32).

    Raises:
        AssertionError: a law is broken; the message names it.
    """
    name, kernel = type(denoiser).__name__, denoiser.kernel
    generator = torch.Generator().manual_seed(0)
    unit = torch.randn(5, *denoiser.image_shape, generator=generator, dtype=torch.float64)
    for part in (0.05, 0.5, 0.95):
        t = torch.tensor(kernel.t_min + part * (kernel.t_max - kernel.t_min), dtype=torch.float64)
        alpha, sigma = kernel.alpha(t), kernel.sigma(t)
        x_t = (0.5 * alpha + sigma) * unit
        with torch.no_grad():
            x_0 = denoiser.denoise(x_t, t, labels)
            assert x_0.shape == x_t.shape, f"{name}: x_0 is {tuple(x_0.shape)} for images {tuple(x_t.shape)}"
            assert bool(x_0.isfinite().all()), f"{name}: x_0 is not finite at time {t:g}"
            for dtype in (torch.float64, torch.float32):
                dtype_of_answer = denoiser.denoise(x_t.to(dtype), t, labels).dtype
                assert dtype_of_answer == dtype, f"{name}: x_0 is {dtype_of_answer} for images of {dtype}"
            _close(denoiser.denoise(x_t, t, labels), x_0, 0, f"{name}: two calls differ")
            _close(denoiser.denoise(x_t, t.expand(5), labels), x_0, 1e-6, f"{name}: t of shape () and (B,) differ")
            eps = (x_t - alpha * x_0) / sigma
            _close(denoiser.eps(x_t, t, labels), eps, 1e-8, f"{name}: eps does not follow from x_0")
            _close(denoiser.score(x_t, t, labels), -eps / sigma, 1e-8, f"{name}: score is not -eps/sigma")
            alone = torch.cat(
                [denoiser.denoise(x_t[i : i + 1], t, None if labels is None else labels[i : i + 1]) for i in range(5)]
            )
            _close(alone, x_0, batch_tolerance, f"{name}: an image depends on its batch mates")


def check_device(build: Callable[[], Denoiser], waits: int = 0, waits_for_labels: int = 0) -> None:
    """Checks answers on an accelerator, without one: all tensors are there, and the host waits as often as stated.

    Args:
        build: Makes the denoiser; what it makes is not used again.
        waits: How often the host may wait for one answer.
        waits_for_labels: How often it may, in addition, to look at labels.

    Raises:
        AssertionError: a tensor was left on the CPU, or the host waited another number of times.
    """
    with FakeDevice(), torch.no_grad():
        denoiser = build().to("cuda")
        middle = (denoiser.kernel.t_min + denoiser.kernel.t_max) / 2
        x_t = torch.zeros(2, *denoiser.image_shape, dtype=torch.float64, device="cuda")
        labels = torch.zeros(2, dtype=torch.int64, device="cuda") if denoiser.num_classes else None
        allowed = waits + (0 if labels is None else waits_for_labels)
        times = torch.tensor(middle, dtype=torch.float64), torch.full((2,), middle, dtype=torch.float64, device="cuda")
        for t in times:
            with Waits():
                denoiser.denoise(x_t, t, labels)  # tables go to the device once
            with Waits() as counter:
                x_0 = denoiser.denoise(x_t, t, labels)
            assert x_0.device.type == "cuda", f"x_0 is on {x_0.device}"
            counted = dict(counter.counted)
            assert sum(counted.values()) == allowed, (
                f"the host waits for the device, {allowed} times are stated: {counted}"
            )


def _close(answer: Tensor, right: Tensor, tolerance: float, message: str) -> None:
    error = (answer - right).abs().max().item()
    limit = tolerance * (1 + right.abs().max().item())
    assert error <= limit, f"{message}: largest difference {error:.1e}, allowed {limit:.1e}"
