"""The laws of each kind, over what this package registers."""

import pytest
import torch

from repro import testing
from repro.kernels import EDM
from repro.parameterizations import EDMPreconditioning
from repro.registry import build


@pytest.mark.parametrize("num_classes", [0, 3])
def test_network(num_classes):
    sizes = {"image_size": 8, "channels": 1, "num_classes": num_classes}
    testing.check_network(lambda: build("networks", "TwoConvolutions", **sizes))


def test_kernel():
    testing.check_kernel(build("kernels", "Sine"))


def test_training_mode():
    parts = {"kernel": EDM(), "parameterization": EDMPreconditioning(), "sampler": build("samplers", "StraightLines")}
    network = {"image_size": 8, "channels": 1}
    testing.check_training(
        lambda: build("modules", "AbsoluteError", network=build("networks", "TwoConvolutions", **network), **parts)
    )


def test_sampler():
    testing.check_sampler(build("samplers", "StraightLines", steps=100), EDM())


def test_operator():
    testing.check_operator(build("operators", "EverySecondRow"))


def test_descriptor():
    testing.check_descriptor(build("descriptors", "Thumbnail"))


def test_data():
    testing.check_data(build("data", "Stripes", subset=50, batch_size=12))


def test_format(tmp_path):
    network = build("networks", "TwoConvolutions", image_size=8, channels=1)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    testing.check_format("two_convolutions", tmp_path / "weights.pth", [])


def test_metric():
    testing.check_pair_metric(build("metrics", "SameBrightness"))


def test_executor(tmp_path):
    testing.check_executor(lambda: build("executors", "OneByOne", retries=0), tmp_path)
