"""`Network`, the base of the networks."""

import pytest

from repro.networks import Network


def test_network_itself_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        Network(8, 1, 0)
