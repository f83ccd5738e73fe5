"""Laws that every descriptor obeys; a package that registers a descriptor runs them on it too."""

from __future__ import annotations

import json
from collections.abc import Callable
from unittest import mock

import torch
from torch import Tensor, nn

from repro.descriptors.base import Descriptor
from repro.errors import UserError
from repro.records import rebuild, record_of
from repro.testing.devices import FakeDevice, Waits

__all__ = [
    "check_batches",
    "check_descriptor",
    "check_device",
    "check_images",
    "check_isolation",
    "check_record",
    "check_vectors",
]


def check_descriptor(descriptor: Descriptor, image_shape: tuple[int, int, int] = (3, 16, 16)) -> None:
    """Runs every law on a descriptor.

    Args:
        descriptor: As built by name, with its weights at hand.
        image_shape: (C, H, W) of images that it can take.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    images = torch.randint(0, 256, (7, *image_shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for law in (check_vectors, check_batches, check_isolation):
        law(descriptor, images)
    check_images(descriptor, images)
    check_record(descriptor)


def check_vectors(descriptor: Descriptor, images: Tensor) -> None:
    """float32 rows on the CPU of length 1 (or 0), an image is nearest to itself, and the images are left alone."""
    before = images.clone()
    features = descriptor.features(images)
    assert torch.equal(before, images), "the images were changed"
    assert features.dtype == torch.float32, f"features are {features.dtype}, not float32"
    assert features.device.type == "cpu", f"features are on {features.device}, not on the CPU"
    assert features.shape[:-1] == images.shape[:1], f"{len(images)} images give {tuple(features.shape)}"
    length = features.double().norm(dim=1)
    assert (((length - 1).abs() < 1e-6) | (length == 0)).all(), f"rows have lengths {length.tolist()}"
    similarity = features @ features.T
    assert (similarity.argmax(1) == torch.arange(len(images))).all(), "an image is not nearest to itself"


def check_batches(descriptor: Descriptor, images: Tensor) -> None:
    """Checks that features do not depend on the batch, and are the same when computed again."""
    whole = descriptor.features(images)
    assert torch.equal(whole, descriptor.features(images)), "a second call gives other features"
    for size in (1, 3):
        gap = float((descriptor.features(images, batch_size=size) - whole).abs().max())
        assert gap < 1e-5, f"batches of {size} move features by {gap}"


def check_isolation(descriptor: Descriptor, images: Tensor) -> None:
    """Checks that a module that holds the descriptor gains no parameter, buffer or entry of its state dict."""

    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.descriptor = descriptor

    descriptor.features(images[:1])
    holder = Holder()
    assert not list(holder.parameters()), "the network became parameters of the module that holds it"
    assert not list(holder.buffers()), "the network became buffers of the module that holds it"
    assert not holder.state_dict(), f"the network is in the state dict: {list(holder.state_dict())[:3]}"
    assert -1 <= descriptor.default_threshold <= 1, f"default threshold {descriptor.default_threshold}"


def check_images(descriptor: Descriptor, images: Tensor) -> None:
    """Checks that anything but uint8 (n, C, H, W) with n >= 1 is an error that says what to do."""
    for wrong in (images.float() / 127.5 - 1, images[0], images[:0], images.numpy()):
        try:
            descriptor.features(wrong)
        except UserError:
            continue
        raise AssertionError(f"{type(wrong).__name__} {wrong.dtype} {tuple(wrong.shape)} was taken for images")


def check_record(descriptor: Descriptor) -> None:
    """Checks that the record goes through JSON and rebuilds a descriptor of the same name and fingerprint."""
    rebuilt = rebuild(json.loads(json.dumps(record_of(descriptor))))
    assert type(rebuilt) is type(descriptor), f"the record rebuilds a {type(rebuilt).__name__}"
    assert rebuilt.name == descriptor.name, f"{descriptor.name} comes back as {rebuilt.name}"
    assert rebuilt.fingerprint == descriptor.fingerprint, "the rebuilt descriptor has another fingerprint"


def check_device(build: Callable[[], Descriptor], image_shape: tuple[int, int, int] = (3, 16, 16)) -> None:
    """Checks a batch on an accelerator, without one: all tensors are there, and the host waits for its result only.

    Args:
        build: Makes the descriptor; what it makes is not used again.
        image_shape: (C, H, W) of images that it can take.

    Raises:
        AssertionError: a tensor was left on the CPU, or the host waited for more than the vectors.
    """
    images = torch.randint(0, 256, (5, *image_shape), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with FakeDevice():
        descriptor = build()
        with Waits():
            descriptor.features(images, device="cuda")  # its weights go to the device once
        with mock.patch.object(nn.Module, "to", lambda module, *_: module), Waits() as waits:
            features = descriptor.features(images, device="cuda")
    assert features.device.type == "cpu", f"features are on {features.device}, not on the CPU"
    counted = dict(waits.counted)
    assert sum(counted.values()) <= 1, f"the host waits for more than the vectors: {counted}"
