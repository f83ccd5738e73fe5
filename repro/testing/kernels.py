"""Laws of kernels."""

from __future__ import annotations

import torch

from repro.kernels import Kernel

__all__ = ["check_kernel"]


def check_kernel(kernel: Kernel) -> None:
    """Checks what every sampler and denoiser takes for granted of a kernel.

    The noise grows against the signal; the inverse functions invert; the derivatives are those of the functions;
    shapes and dtypes are kept; the starting noise is that of ``t_max``.

    Args:
        kernel: Any kernel.

    Raises:
        AssertionError: a law is broken; the message names it.
    """
    name = type(kernel).__name__
    assert 0 < kernel.t_min < kernel.t_max, f"{name}: times {kernel.t_min} to {kernel.t_max} are not above 0 and rising"
    t = torch.linspace(kernel.t_min, kernel.t_max, 403, dtype=torch.float64)
    _check_scales(kernel, t)
    _check_inverses(kernel, t)
    _check_derivatives(kernel, t[1:-1])
    _check_tensors(kernel, t)
    final = kernel.sigma(t[-1]).item()
    assert abs(kernel.prior_scale / final - 1) < 0.05, (
        f"{name}: prior_scale is {kernel.prior_scale:g}, but the noise at t_max has standard deviation {final:g}"
    )


def _check_scales(kernel: Kernel, t: torch.Tensor) -> None:
    name = type(kernel).__name__
    alpha, sigma, ratio = kernel.alpha(t), kernel.sigma(t), kernel.ratio(t)
    for label, value in (("alpha", alpha), ("sigma", sigma)):
        assert bool(((value > 0) & value.isfinite()).all()), f"{name}: {label} is not positive and finite everywhere"
    assert bool((ratio.diff() > 0).all()), f"{name}: the ratio sigma/alpha does not grow with time"
    torch.testing.assert_close(ratio, sigma / alpha, rtol=1e-10, atol=0, msg=f"{name}: ratio is not sigma/alpha")
    torch.testing.assert_close(
        kernel.log_snr(t), (alpha / sigma).log(), rtol=1e-9, atol=1e-10, msg=f"{name}: log_snr is not log(alpha/sigma)"
    )


def _check_inverses(kernel: Kernel, t: torch.Tensor) -> None:
    name = type(kernel).__name__
    for label, back in (
        ("time_of_ratio(ratio(t))", kernel.time_of_ratio(kernel.ratio(t))),
        ("time_of_log_snr(log_snr(t))", kernel.time_of_log_snr(kernel.log_snr(t))),
    ):
        torch.testing.assert_close(back, t, rtol=1e-8, atol=0, msg=lambda text, label=label: f"{name}: {label}: {text}")


def _check_derivatives(kernel: Kernel, t: torch.Tensor) -> None:
    name, h = type(kernel).__name__, 1e-6 * t
    for label, function, derivative in (
        ("log_alpha_dot", kernel.log_alpha, kernel.log_alpha_dot),
        ("sigma_dot", kernel.sigma, kernel.sigma_dot),
    ):
        value = function(t)
        sides = torch.stack([(function(t + h) - value) / h, (value - function(t - h)) / h])
        slope, low, high = derivative(t), sides.amin(0), sides.amax(0)
        outside = torch.maximum(low - slope, slope - high).clamp(min=0)
        error = (outside / (sides.abs().amax(0) + 1e-4 * sides.abs().max() + 1e-12)).max().item()
        assert error < 1e-4, f"{name}: {label} differs from the one-sided differences by {error:.1e} of itself"


def _check_tensors(kernel: Kernel, t: torch.Tensor) -> None:
    name = type(kernel).__name__
    for label in ("alpha", "sigma", "ratio", "log_snr", "log_alpha_dot", "sigma_dot", "time_of_ratio"):
        function = getattr(kernel, label)
        value = kernel.ratio(t) if label == "time_of_ratio" else t
        exact = function(value)
        for shape in ((), (3, 2)):
            part = value[:6].view(3, 2) if shape else value[0]
            assert function(part).shape == shape, f"{name}: {label} does not keep the shape {shape}"
            assert function(part).dtype == torch.float64, f"{name}: {label} does not keep float64"
        single = function(value.float())
        assert single.dtype == torch.float32, f"{name}: {label} does not keep float32"
        torch.testing.assert_close(
            single.double(), exact, rtol=5e-3, atol=1e-3 * float(exact.abs().max()),
            msg=lambda text, label=label: f"{name}: {label} in float32: {text}",
        )  # fmt: skip
