"""Every registered network obeys the laws of `repro.testing.networks`, and the laws notice networks that do not."""

import pytest
import torch
from torch import nn

from repro import registry
from repro.denoisers import NetworkDenoiser
from repro.errors import UserError
from repro.kernels import VP
from repro.networks import Network
from repro.parameterizations import EDMPreconditioning
from repro.testing import networks as laws
from repro.testing.denoisers import check_device

UNET = {"width": 16, "channel_mult": [1, 2], "num_blocks": 1, "attention_at": [4], "dropout": 0.0}
SMALL = {
    "ADM": UNET | {"channels_per_head": 8},
    "DiT": {"width": 32, "depth": 2, "heads": 2, "patch_size": 2},
    "MLP": {"width": 32, "depth": 2},
    "MultistageUNet": UNET | {"decoder_widths": [24, 16, 8], "boundaries": [0.4, 500.0]},
    "SongUNet": UNET,
    "UViT": {"width": 32, "depth": 2, "heads": 2, "patch_size": 2},
}
LAWS = [getattr(laws, name) for name in laws.__all__ if name.startswith("check_") and name != "check_network"]


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("check_"))
@pytest.mark.parametrize("name", registry.names("networks"))
def test_law(name, law, num_classes):
    settings = SMALL.get(name, {})
    law(lambda: registry.build("networks", name, image_size=8, channels=1, num_classes=num_classes, **settings))


@pytest.mark.parametrize("num_classes", [0, 3])
@pytest.mark.parametrize("name", registry.names("networks"))
def test_as_a_denoiser_on_an_accelerator_it_does_not_wait(name, num_classes):
    """At one time for all, of which the host knows the stage, and at one for each image."""
    sizes = {"image_size": 8, "channels": 1, "num_classes": num_classes}
    settings = SMALL.get(name, {})
    check_device(
        lambda: NetworkDenoiser(
            registry.build("networks", name, **sizes, **settings).eval(), VP(), EDMPreconditioning()
        )
    )


@pytest.mark.parametrize("channels", [1, 5, 16])
@pytest.mark.parametrize("name", ["SongUNet", "ADM", "MultistageUNet", "UViT", "DiT", "MLP"])
def test_images_of_any_sides_and_channels(name, channels):
    """Rows are not mixed up with columns: an image of 8x12 and its transpose have one network each."""
    for size in ([8, 12], [12, 8]):
        network = registry.build("networks", name, image_size=size, channels=channels, **SMALL[name]).eval()
        x = torch.randn(2, channels, *size)
        assert network.image_shape == (channels, *size)
        assert network(x, torch.tensor([0.1, 600.0])).shape == x.shape
        with pytest.raises(UserError, match="was built for images"):
            network(x.transpose(2, 3), torch.tensor([0.1, 600.0]))
    if name not in ("MLP", "DiT"):
        with pytest.raises(UserError, match="9"):
            registry.build("networks", name, image_size=[8, 9], channels=channels, **SMALL[name])
    with pytest.raises(UserError, match=r"is \[8, 8, 8\]; give pixels a side, or \[height, width\]"):
        registry.build("networks", name, image_size=[8, 8, 8], channels=1, **SMALL[name])


class Sound(Network):
    """A linear map of image, level and class, on which each of the faulty networks below changes one thing."""

    def __init__(self, image_size=4, channels=1, num_classes=3):
        super().__init__(image_size, channels, num_classes)
        self.pixels = nn.Linear(image_size**2 * channels, image_size**2 * channels)
        self.level = nn.Linear(1, 1)
        self.label = nn.Linear(max(self.num_classes, 1), image_size**2 * channels)

    def forward(self, x, noise_level, labels=None):
        self.check_input(x, noise_level)
        self.check_labels(labels, len(x))
        shift = self.level(noise_level[:, None].log()) + self.embed(labels)
        return self.finish(self.pixels(x.flatten(1)) + shift).view_as(x)

    def embed(self, labels):
        return self.label(nn.functional.one_hot(labels, self.num_classes).to(self.label.weight.dtype))

    def finish(self, answer):
        return answer


class UnusedParameter(Sound):
    def __init__(self):
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(1))


class InfiniteGradient(Sound):
    def finish(self, answer):
        return answer + (answer - answer.detach()).abs().sqrt()


class BlindToLevel(Sound):
    def forward(self, x, noise_level, labels=None):
        return super().forward(x, torch.ones_like(noise_level) + 0 * noise_level, labels)


class BlindToLabel(Sound):
    def embed(self, labels):
        return super().embed(labels * 0) if not self.training else super().embed(labels)


class MixesBatch(Sound):
    def finish(self, answer):
        return answer - answer.mean(dim=0) / 2


class Random(Sound):
    def finish(self, answer):
        return answer + 1e-6 * torch.randn_like(answer)


class HiddenState(Sound):
    def __init__(self):
        super().__init__()
        self.gain = torch.rand(1).item() + 0.5

    def finish(self, answer):
        return answer * self.gain


class SinglePrecision(Sound):
    def finish(self, answer):
        return answer.float()


class AnyShape(Sound):
    def check_input(self, x, noise_level):
        pass


class AnyLabel(Sound):
    def check_labels(self, labels, batch, optional=False):
        pass


class Mixer(nn.Linear):
    def forward(self, tokens):
        return nn.functional.scaled_dot_product_attention(super().forward(tokens), tokens, tokens)


class AttendsInSecret(Sound):
    def __init__(self):
        super().__init__()
        self.mixer = Mixer(4, 4)

    def finish(self, answer):
        return answer + self.mixer(answer.view(-1, 4, 4)).flatten(1)


class OnlyDeclares(Sound):
    attention_parameters = ("pixels.*",)


class ReadsAValue(Sound):
    """The host waits for the device in every forward pass; a compiler stops there."""

    def finish(self, answer):
        return answer * (2.0 if answer.sum().item() > 0 else 1.0)


class RoutesByValue(Sound):
    def forward(self, x, noise_level, labels=None):
        rows = (noise_level > 0.2).nonzero().squeeze(1)
        return super().forward(x, noise_level, labels).index_add(0, rows, x[rows])


class LeftBehind(Sound):
    def __init__(self):
        super().__init__()
        self.gains = [torch.ones(3, device="cpu")]

    def finish(self, answer):
        return answer * self.gains[0][:1]


class CopiesEachTime(LeftBehind):
    def finish(self, answer):
        return answer * self.gains[0].to(answer.device).sum()


@pytest.mark.parametrize(
    ("network", "law", "message"),
    [
        (UnusedParameter, laws.check_gradients, "spare gets no gradient"),
        (InfiniteGradient, laws.check_gradients, "not finite"),
        (BlindToLevel, laws.check_conditions, "noise levels give the same output"),
        (BlindToLabel, laws.check_conditions, "labels give the same output"),
        (MixesBatch, laws.check_rows, "alone and in a batch"),
        (Random, laws.check_rows, "two evaluations of one batch differ"),
        (HiddenState, laws.check_state, "another instance"),
        (SinglePrecision, laws.check_float64, "answers in torch.float32"),
        (AnyShape, laws.check_inputs, "images with another number of channels"),
        (AnyLabel, laws.check_inputs, "labels that are too few"),
        (ReadsAValue, laws.check_graph, "is not one graph"),
        (ReadsAValue, laws.check_device, r"item\(\) or tolist\(\)"),
        (RoutesByValue, laws.check_device, r"nonzero\(\)"),
        (LeftBehind, laws.check_device, "tensor|device"),
        (CopiesEachTime, laws.check_device, "pageable memory"),
        (AttendsInSecret, laws.check_attention, "mixer.bias belongs to an attention layer and is not declared"),
        (OnlyDeclares, laws.check_attention, "pixels.bias is declared to be of attention, but nothing attends"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_law_notices(network, law, message):
    law(Sound)
    with pytest.raises(AssertionError, match=message):
        law(network)
    with pytest.raises(AssertionError):
        laws.check_network(network)


def test_record_law_needs_registration():
    with pytest.raises(UserError, match="cannot be recorded"):
        laws.check_network(Sound)


def test_missing_sizes_are_named():
    with pytest.raises(UserError, match=r"SongUNet needs channels; .*"):
        registry.build("networks", "SongUNet", image_size=8)
