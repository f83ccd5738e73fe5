"""SSCD's network: recorded pooling and key lists, torchvision's residual networks, released files, and speed-ups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet

from repro.descriptors.released import fused, prepacked, read_released
from repro.descriptors.sscd import SSCD
from repro.errors import UserError
from repro.networks.sscd import GeM, SSCDNetwork
from repro.released.sscd import layout as layout

ORACLE = Path(__file__).parents[1] / "oracles" / "sscd"
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
SIZES = {
    "resnet": {"depths": [1, 2, 1, 1], "stem_width": 64, "groups": 1, "base_width": 64},
    "resnext": {"depths": [1, 1, 2, 1], "stem_width": 64, "groups": 4, "base_width": 4},
}


class Mean3(nn.Module):
    """The published pooling, written out."""

    def forward(self, x):
        return (torch.clamp(x, min=1e-6) ** 3.0).mean(dim=(2, 3), keepdim=True) ** (1.0 / 3.0)


class Published(nn.Module):
    """The published network in torchvision's layout, around torchvision's residual network."""

    def __init__(self, kind, sign=1.0):
        super().__init__()
        sizes, self.sign = SIZES[kind], sign
        self.backbone = ResNet(
            Bottleneck, sizes["depths"], num_classes=16, groups=sizes["groups"], width_per_group=sizes["base_width"]
        )
        self.backbone.avgpool = Mean3()

    def forward(self, images):
        x = self.backbone(images)
        return self.sign * x / x.square().sum(dim=1, keepdim=True).sqrt()


def published(kind, sign=1.0):
    torch.manual_seed(0)
    network = Published(kind, sign)
    for name, value in network.state_dict().items():
        if "running_var" in name or name.endswith(("bn1.weight", "bn2.weight", "bn3.weight")):
            value.uniform_(0.5, 1.5)
        elif "running_mean" in name or (".bn" in name and name.endswith("bias")):
            value.normal_(0, 0.2)
    return network.eval()


def classy(state):
    """The same tensors under ClassyVision's names, by the recorded list."""
    theirs = {
        ours: name for name, ours in json.loads((ORACLE / "keys.json").read_text())["classy_to_torchvision"].items()
    }
    return {theirs[name]: tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def images():
    return torch.randn(3, 3, 70, 49, generator=torch.Generator().manual_seed(1))


def test_recorded_pooling_head_and_names(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    from parity_checks.checks import run_fixture

    result = run_fixture(ORACLE)
    assert result.verdict == "pass", result
    assert {"gem_p3", "embedding", "names of CV_RESNEXT101_1024"} <= {check.name for check in result.checks}


@pytest.mark.parametrize("power", [1.0, 2.5, 60.0])
def test_generalised_mean_in_closed_form(power):
    """Of a constant map it is the constant; of a map with k of n places at a, the others at 0, it is a (k/n)^(1/p)."""
    x = torch.zeros(1, 2, 4, 5, dtype=torch.float64)
    x[0, 0], x[0, 1, 0] = 0.7, 3.0
    found = GeM(power)(x)[0]
    assert found[0].item() == pytest.approx(0.7, rel=1e-12)
    assert found[1].item() == pytest.approx(3.0 * (5 / 20) ** (1 / power), rel=1e-4)


@pytest.mark.parametrize("style", ["torchvision", "classy"])
@pytest.mark.parametrize("kind", list(SIZES))
def test_released_state_dicts_give_the_published_vectors(kind, style, tmp_path, images):
    theirs = published(kind)
    state = theirs.state_dict()
    torch.save(classy(state) if style == "classy" else state, tmp_path / f"x.{style}.pt")
    network = read_released(tmp_path / f"x.{style}.pt")
    assert isinstance(network, SSCDNetwork)
    with torch.no_grad():
        torch.testing.assert_close(network(images), theirs(images), rtol=0, atol=2e-6)


def test_a_program_is_replaced_only_by_the_same_function(tmp_path, images):
    for sign, kind in ((1.0, SSCDNetwork), (-1.0, torch.jit.ScriptModule)):
        theirs = published("resnet", sign)
        torch.jit.script(theirs).save(str(tmp_path / "x.torchscript.pt"))
        network = read_released(tmp_path / "x.torchscript.pt")
        assert isinstance(network, kind)
        with torch.no_grad():
            torch.testing.assert_close(network(images), theirs(images), rtol=0, atol=2e-6)


def test_networks_for_inference_are_the_same_function(images):
    network = SSCDNetwork(**layout.settings(published("resnext").state_dict()))
    network.load_state_dict(layout.state_dict(published("resnext").state_dict(), network))
    network.eval().requires_grad_(False)
    for fast in (fused(network), prepacked(network)):
        torch.testing.assert_close(fast(images), network(images), rtol=0, atol=2e-6)
    half = prepacked(network, torch.bfloat16)(images)
    assert half.dtype == torch.float32
    assert 0 < (half @ half.T - network(images) @ network(images).T).abs().max() < 0.01
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def test_widths_that_no_group_divides_evenly_are_read():
    """timm rounds widths down: 24 planes of 4 channels a group are 10.67 at 64 planes."""
    given = {"widths": (24, 48, 96, 192), "depths": (1, 1, 1, 1), "groups": 5, "base_width": 10.667, "stem_width": 24}
    network = SSCDNetwork(**given, dims=8)
    foreign = {name.replace("head.", "backbone.fc."): tensor for name, tensor in network.state_dict().items()}
    again = SSCDNetwork(**layout.settings(foreign))
    again.load_state_dict(layout.state_dict(foreign, again))
    assert again.backbone.layer1[0].conv2.weight.shape == (20, 4, 3, 3)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda state: state.pop("backbone.layer2.0.bn1.bias"), "backbone.layer2.0.bn1.bias"),
        (lambda state: state.update(extra=torch.zeros(1)), "'extra'"),
        (lambda state: state.update({"backbone.layer1.0.bn1.bias": torch.zeros(7)}), "(7,)"),
        (lambda state: state.clear(), "no weights of SSCD"),
        (lambda state: state.update({"backbone.fc.bias": [1, 2]}), "no state dict"),
    ],
)
def test_loading_is_strict(change, word, tmp_path):
    state = published("resnet").state_dict()
    change(state)
    torch.save(dict(state), tmp_path / "x.pt")
    with pytest.raises(UserError) as caught:
        SSCD(str(tmp_path / "x.pt")).features(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
    assert word in str(caught.value)
    assert "x.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"block": "botleneck"}, "did you mean 'bottleneck'"),
        ({"stem": "small"}, "full"),
        ({"widths": (1, 2, 3)}, "four numbers"),
        ({"stem_width": 5}, "even"),
    ],
)
def test_sizes_that_do_not_fit_are_one_line(settings, word):
    with pytest.raises(UserError, match=word):
        SSCDNetwork(**settings)


def test_descriptors_have_unit_length(images):
    network = SSCDNetwork(3, (4, 4, 4, 4), (1, 1, 1, 1), "basic", stem="half", stem_width=4, dims=8).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images), F.normalize(network.embed(images)))
        torch.testing.assert_close(network(images).norm(dim=1), torch.ones(3))
