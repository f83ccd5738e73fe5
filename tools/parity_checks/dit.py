"""The DiT of facebookresearch/DiT, with its guidance."""

from __future__ import annotations

import re
from collections.abc import Iterator

from parity_checks.fixture import Check, Fixture
from repro.networks.dit import guided_output
from repro.released.dit import layout as layout

__all__ = ["dit"]


def dit(fixture: Fixture) -> Iterator[Check]:
    """Output with labels and with the null class, and the guided output; ``out_cfg1p5`` is that of strength 1.5."""
    network = fixture.network(layout, fixture.settings)
    x, t, labels = fixture.io["x"], fixture.io["t"].float(), fixture.classes("y")
    yield fixture.compare("out", network.full(x, t, labels))
    if "out_null" in fixture.outputs:
        yield fixture.compare("out_null", network.full(x, t))
    for name in sorted(fixture.outputs):
        if found := re.fullmatch(r"out_cfg([0-9p.]+)", name):
            yield fixture.compare(name, guided_output(network, x, t, labels, float(found[1].replace("p", "."))))
