"""Networks of LucasYFL/Multistage_Diffusion: its forks of EDM and of score_sde, U-Nets and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

from torch import Tensor, nn

from parity_checks.fixture import Check, Fixture
from repro.denoisers import NetworkDenoiser
from repro.kernels import EDM, VP
from repro.parameterizations import EDMPreconditioning, Eps
from repro.released.multistage import layout as multistage, transformer_layout as multistage_transformers

__all__ = ["multistage_edm", "multistage_score_sde"]

_TRANSFORMERS = ("UViT", "UViT_one_hot", "UViT_multimodel", "DiT")


class OneStage(nn.Module):
    """A network whose whole batch takes the decoder of its first row, as it is in the reference."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.image_shape, self.num_classes = network, network.image_shape, network.num_classes

    def forward(self, x: Tensor, noise_level: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.network(x, noise_level, labels, stage=int(self.network.stage_of(noise_level[:1])))


def _mixed(fixture: Fixture, network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The ends of the input names, each with the network that its rows go through."""
    for name in fixture.io:
        if name.startswith("x_"):
            end = name.removeprefix("x_")
            yield end, OneStage(network) if end == "mixed" and hasattr(network, "stage_of") else network


def multistage_edm(fixture: Fixture) -> Iterator[Check]:
    """Denoised images of EDM's wrapper around the multistage network."""
    network = fixture.network(multistage, fixture.settings)
    meaning = EDMPreconditioning(fixture.settings.get("sigma_data", 0.5))
    for end, answering in _mixed(fixture, network):
        x, sigma = fixture.io[f"x_{end}"].double(), fixture.io[f"sigma_{end}"].double()
        labels = fixture.classes(f"class_labels_{end}")
        yield fixture.compare(f"D_{end}", NetworkDenoiser(answering, EDM(), meaning).denoise(x, sigma, labels))


def multistage_score_sde(fixture: Fixture) -> Iterator[Check]:
    """Outputs and scores of the networks in the score_sde fork, and the order of their averaged tensors."""
    model = fixture.settings["model"]
    layout: ModuleType = multistage_transformers if model["name"] in _TRANSFORMERS else multistage
    network = fixture.network(layout, fixture.settings)
    kernel = VP(model.get("beta_min", 0.1), model.get("beta_max", 20.0))
    for end, answering in _mixed(fixture, network):
        x, level, labels = fixture.io[f"x_{end}"], fixture.io[f"labels_{end}"].float(), fixture.classes(f"y_{end}")
        whole = network.full if model.get("learn_sigma") else answering
        score = NetworkDenoiser(answering, kernel, Eps()).score(x.double(), level.double() / 999, labels)
        yield from fixture.compare_all({f"out_{end}": whole(x, level, labels), f"score_{end}": score})
    if "shadow_params_order" in fixture.meta:
        yield fixture.compare_averaged(layout.shadow_names(network))
