"""The networks of facebookresearch/sscd-copy-detection: pooling, head, descriptors, names of the released tensors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import torch
from torch.nn import functional as F

from parity_checks.fixture import Check, Fixture
from repro.networks.sscd import GeM, SSCDNetwork
from repro.released.sscd import layout as layout

__all__ = ["sscd_network", "sscd_parts"]


def sscd_parts(fixture: Fixture) -> Iterator[Check]:
    """Generalised means, the head and unit lengths; and the names and shapes of the released networks."""
    head, maps = fixture.weights(), fixture.io["feature_map"]
    pooled = GeM(fixture.settings["pool_param"])(maps)
    embedding = F.linear(pooled, head["embeddings.1.weight"], head["embeddings.1.bias"])
    given = {name: GeM(float(name[5:]))(maps) for name in fixture.outputs if name.startswith("gem_p")}
    given |= {"embedding_unnormalised": embedding, "embedding": F.normalize(embedding)}
    yield from fixture.compare_all(given | {"l2norm_tiny": F.normalize(fixture.io["tiny_vectors"])})
    names = fixture.folder / "keys.json"
    if names.is_file():
        yield from _names(json.loads(names.read_text())["models"])


def _names(models: dict[str, list[list]]) -> Iterator[Check]:
    """A check for each released network; its error is 1 when the names or shapes are not exactly ours."""
    for model, tensors in models.items():
        with torch.device("meta"):
            released = {name: torch.empty(shape, dtype=getattr(torch, dtype)) for name, shape, dtype in tensors}
            network = SSCDNetwork(**layout.settings(released))
            network.load_state_dict(layout.state_dict(released, network), assign=True)
        yield Check(f"names of {model}", 0.0, 0.0, 0.0)


def sscd_network(fixture: Fixture) -> Iterator[Check]:
    """Feature maps and descriptors of a whole network."""
    weights = fixture.weights()
    sizes = layout.settings(weights)
    wrong = [name for name, value in _expected(fixture).items() if sizes[name] != value]
    yield Check("sizes", float(len(wrong)), 0.0, math.inf if wrong else 0.0)
    network = SSCDNetwork(**sizes)
    network.load_state_dict(layout.state_dict(weights, network))
    x, network = fixture.io["x"], network.eval()
    yield from fixture.compare_all({"backbone": network.backbone(x), "embedding": network(x)})


def _expected(fixture: Fixture) -> dict[str, object]:
    """Sizes that the settings of the fixture name."""
    given = fixture.settings
    found: dict[str, object] = {
        "depths": given["num_blocks"],
        "stem_width": given["init_planes"],
        "dims": given["dims"],
    }
    if "base_width_and_cardinality" in given:
        found["groups"] = given["base_width_and_cardinality"][1]
    return found
