"""`Network` as the type of an argument: any module is accepted, registered networks are found by their short names."""

import importlib.metadata
import sys
import types

import pytest
from jsonargparse import ArgumentParser
from torch import nn

from repro import registry
from repro.networks import Network


class Holder:
    """Holds a network.

    Args:
        network: The network.
    """

    def __init__(self, network: Network):
        self.network = network


@pytest.fixture
def third_party(monkeypatch):
    """A package that registers a plain module, and another whose module cannot be imported."""
    module = types.ModuleType("stranger_nets")

    class Stranger(nn.Module):
        def __init__(self, image_size: int = 8, channels: int = 1, num_classes: int = 0, hidden: int = 3):
            super().__init__()
            self.image_shape = (channels, image_size, image_size)
            self.layer = nn.Linear(hidden, hidden)

    Stranger.__module__, Stranger.__qualname__ = "stranger_nets", "Stranger"
    module.Stranger = Stranger
    monkeypatch.setitem(sys.modules, "stranger_nets", module)
    real = importlib.metadata.entry_points

    def entry_points(**selection):
        found = list(real(**selection))
        if selection.get("group") == "repro.networks":
            for name, value in (("Stranger", "stranger_nets:Stranger"), ("Broken", "no_such_module:Broken")):
                found.append(importlib.metadata.EntryPoint(name, value, "repro.networks"))
        return found

    monkeypatch.setattr(importlib.metadata, "entry_points", entry_points)
    registry._scan.cache_clear()
    yield module
    registry._scan.cache_clear()


def parser():
    made = ArgumentParser(exit_on_error=False)
    made.add_class_arguments(Holder, "holder")
    return made


def test_any_module_is_a_network_but_only_in_the_type_itself():
    assert isinstance(nn.Linear(1, 1), Network)
    assert issubclass(nn.Conv2d, Network)
    assert not issubclass(int, Network)
    song = registry.load("networks", "SongUNet")
    assert not isinstance(nn.Linear(1, 1), song)
    assert not issubclass(nn.Conv2d, song)


def test_network_itself_cannot_be_built():
    with pytest.raises(TypeError, match="abstract"):
        Network(8, 1, 0)


def test_subclasses_are_the_registered_networks(third_party):
    listed = {cls.__name__ for cls in Network.__subclasses__()}
    assert "Stranger" in listed
    assert listed == {*registry.names("networks")} - {"Broken"}


@pytest.mark.parametrize("name", ["SongUNet", "MLP"])
def test_short_name_of_own_network(name):
    made = parser()
    arguments = [f"--holder.network={name}", "--holder.network.image_size=8", "--holder.network.channels=1"]
    built = made.instantiate(made.parse_args([*arguments, "--holder.network.width=16"]))
    assert type(built.holder.network).__name__ == name
    assert built.holder.network.image_shape == (1, 8, 8)


def test_short_name_of_third_party_network(third_party):
    made = parser()
    built = made.instantiate(made.parse_args(["--holder.network=Stranger", "--holder.network.hidden=5"]))
    assert isinstance(built.holder.network, third_party.Stranger)
    assert built.holder.network.layer.in_features == 5


def test_help_lists_registered_networks_only(third_party):
    text = parser().format_help()
    assert "SongUNet" in text
    assert "Stranger" in text
    assert "Conv2d" not in text


def test_options_of_multistage_reach_the_command_line():
    made = parser()
    values = made.parse_args(
        [
            "--holder.network=repro.networks.MultistageUNet",
            "--holder.network.boundaries=[0.1]",
            "--holder.network.encoder=residual",
        ]
    )
    assert values.holder.network.init_args.encoder == "residual"
    with pytest.raises(Exception, match="encoder"):
        made.parse_args(["--holder.network=repro.networks.MultistageUNet", "--holder.network.encoder=oblique"])
