"""The registry: entry points to classes, mistakes told by name, records that rebuild."""

import abc
import importlib.metadata
import inspect
import json
import subprocess
import sys
import types

import pytest
import torch
from torch import nn

from repro import registry
from repro.errors import UserError, nearest, unknown
from repro.kernels import VE, VP
from repro.networks.base import Network
from repro.registry import Group, Plugin, build, entries, load, names, rebuild, record_of

MODULE = "repro_fake_plugin"


class Gadget(Plugin):
    """Takes every kind of plain argument, and another plug-in."""

    def __init__(self, size, factor=0.5, name="x", flags=(1, 2), table=None, inner=None, **more):
        self.size, self.inner, self.more = size, inner, more


class Child(Gadget):
    def __init__(self, size, extra=True):
        super().__init__(size * 2, factor=9.0)
        self.extra = extra


class Grandchild(Child):
    """Has no constructor of its own."""


class Warm(VE):
    """A kernel of a third party."""


class Open(Gadget):
    """Leaves a method open."""

    @abc.abstractmethod
    def turn(self): ...

    @abc.abstractmethod
    def halt(self): ...


class Bare(nn.Module):
    """A plain module of a third party, without any base class of ours."""

    def __init__(self, width=3):
        super().__init__()
        self.layer = nn.Linear(width, 1)


def point(group, name, target, package="fake-package", version="1.2"):
    made = importlib.metadata.EntryPoint(name, target, f"repro.{group}")
    dist = types.SimpleNamespace(name=package, version=version) if package else None
    object.__setattr__(made, "dist", dist)
    return made


@pytest.fixture
def plug_in(monkeypatch):
    """Adds entry points beside the real ones, and the module they point to."""
    module = types.ModuleType(MODULE)
    for cls in (Gadget, Child, Grandchild, Warm, Open, Bare):
        monkeypatch.setattr(cls, "__module__", MODULE)
        setattr(module, cls.__name__, cls)
    module.GADGETS = Group("gadgets", f"{MODULE}:Gadget")
    monkeypatch.setitem(sys.modules, MODULE, module)
    real = importlib.metadata.entry_points

    def add(*points):
        def found(**parameters):
            mine = (point("groups", "gadgets", f"{MODULE}:GADGETS"), *points)
            return [*real(**parameters), *(p for p in mine if p.group == parameters["group"])]

        monkeypatch.setattr(importlib.metadata, "entry_points", found)
        registry.refresh()

    yield add
    registry.refresh()


def test_built_ins_are_registered_like_any_other():
    for group, some in {
        "kernels": {"VP", "DiscreteVP", "SubVP", "VE", "EDM", "Cosine", "Flow"},
        "parameterizations": {"Eps", "X0", "V", "Velocity", "Score", "EDMPreconditioning"},
        "samplers": {"Euler", "Heun", "DPMSolver", "RK45", "Ancestral", "EDMStochastic"},
    }.items():
        assert some <= set(names(group))
        assert names(group) == sorted(names(group))
        for name in some:
            assert load(group, name).__name__ == name
    first = entries("kernels")[0]
    assert (first.group, first.name, first.target) == ("kernels", "Cosine", "repro.kernels:Cosine")
    assert first.package == "repro"
    assert first.version


def test_listing_imports_nothing():
    code = (
        "import sys; from repro import registry; [registry.entries(g) for g in registry.group_names()]; "
        "sys.exit(any(m in sys.modules for m in ('torch', 'lightning', 'numpy')))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: names("kernel"), "unknown plug-in group 'kernel'; did you mean 'kernels'?"),
        (lambda: entries("nonsense"), "unknown plug-in group 'nonsense'; known: kernels, networks"),
        (lambda: load("kernels", "vp"), "unknown kernel 'vp'; did you mean 'VP'? known: Cosine, DiscreteVP"),
        (lambda: load("kernels", "VPP"), "(list them: repro plugins kernels)"),
        (lambda: build("samplers", "DPMSolvr"), "unknown sampler 'DPMSolvr'; did you mean 'DPMSolver'?"),
        (lambda: build("kernels", "VP", rate_maxx=3.0), "unknown argument of VP 'rate_maxx'; did you mean 'rate_max'?"),
        (lambda: rebuild({"group": "kernels", "name": "VQ", "args": {}}), "unknown kernel 'VQ'"),
        (lambda: rebuild({"group": "kernls", "name": "VP", "args": {}}), "unknown plug-in group 'kernls'"),
    ],
)
def test_unknown_names(call, message):
    with pytest.raises(UserError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_third_party_name_works_everywhere(plug_in):
    plug_in(point("networks", "Bare", f"{MODULE}:Bare"), point("gadgets", "Gadget", f"{MODULE}:Gadget"))
    assert "Bare" in names("networks")
    entry = next(entry for entry in entries("networks") if entry.name == "Bare")
    assert (entry.package, entry.version, entry.target) == ("fake-package", "1.2", f"{MODULE}:Bare")
    network = build("networks", "Bare", width=5)
    assert network.layer.in_features == 5
    assert record_of(network) == {"group": "networks", "name": "Bare", "args": {"width": 5}}
    assert rebuild(record_of(network)).layer.in_features == 5
    assert list(network.state_dict()) == ["layer.weight", "layer.bias"]


def test_two_packages_claim_one_name(plug_in):
    plug_in(point("kernels", "VP", f"{MODULE}:Warm"), point("kernels", "Mine", f"{MODULE}:Warm"))
    with pytest.raises(UserError) as caught:
        load("kernels", "VP")
    message = str(caught.value)
    assert "kernel 'VP' is claimed by" in message
    assert "repro (repro.kernels:VP)" in message
    assert f"fake-package ({MODULE}:Warm)" in message
    assert names("kernels").count("VP") == 1
    assert len([entry for entry in entries("kernels") if entry.name == "VP"]) == 2
    assert build("kernels", "Mine", sigma_max=3.0).sigma_max == 3.0
    assert isinstance(build("kernels", "VE"), VE)


def test_one_package_found_twice_is_no_clash(plug_in):
    """An editable install can show the same entry point from two places."""
    plug_in(*[point("kernels", "Mine", f"{MODULE}:Warm")] * 2)
    assert build("kernels", "Mine", sigma_max=3.0).sigma_max == 3.0


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("repro_no_such_module:Thing", "ModuleNotFoundError: No module named 'repro_no_such_module'"),
        (f"{MODULE}:Missing", "AttributeError"),
        (f"{MODULE}_broken:Thing", "RuntimeError: two lines"),
    ],
)
def test_broken_plug_in_takes_nothing_down(plug_in, monkeypatch, tmp_path, target, reason):
    (tmp_path / f"{MODULE}_broken.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.syspath_prepend(tmp_path)
    plug_in(point("kernels", "Broken", target), point("kernels", "Nameless", f"{MODULE}:Warm", package=None))
    assert {"Broken", "VP"} <= set(names("kernels"))
    with pytest.raises(UserError) as caught:
        load("kernels", "Broken")
    assert f"kernel 'Broken' of package fake-package cannot be imported from {target}: {reason}" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(build("kernels", "VP"), VP)
    assert build("kernels", "Nameless", sigma_max=2.0).sigma_max == 2.0
    assert record_of(VP())["name"] == "VP"


def test_record_holds_defaults_and_nested_plug_ins(plug_in):
    plug_in(point("gadgets", "Gadget", f"{MODULE}:Gadget"))
    gadget = Gadget(3, flags=[1, (2, 3)], table={"a": [1.5, None]}, inner=VP(rate_max=7.0), colour="red")
    record = record_of(gadget)
    assert record["args"] == {
        "size": 3,
        "factor": 0.5,
        "name": "x",
        "flags": [1, [2, 3]],
        "table": {"a": [1.5, None]},
        "inner": {"group": "kernels", "name": "VP", "args": {"rate_min": 0.1, "rate_max": 7.0, "t_min": 1e-3}},
        "colour": "red",
    }
    again = rebuild(json.loads(json.dumps(record)))
    assert again.inner.rate_max == 7.0
    assert again.more == {"colour": "red"}
    assert record_of(again) == record


def test_only_the_outermost_constructor_is_recorded(plug_in):
    points = [point("gadgets", name, f"{MODULE}:{name}") for name in ("Gadget", "Child", "Grandchild")]
    plug_in(*points)
    child = Child(4)
    assert record_of(child)["args"] == {"size": 4, "extra": True}
    assert child.size == 8
    grandchild = Grandchild(5, extra=False)
    assert record_of(grandchild) == {"group": "gadgets", "name": "Grandchild", "args": {"size": 5, "extra": False}}
    assert rebuild(record_of(grandchild)).size == 10


def test_record_bears_the_name_of_the_entry_point(plug_in):
    """Also where it is not the name of the class, and where it points to a module that only passes the class on."""
    shop = types.ModuleType("repro_fake_shop")
    shop.Gadget = Gadget
    sys.modules["repro_fake_shop"] = shop
    try:
        plug_in(point("gadgets", "gadgetry", "repro_fake_shop:Gadget"))
        record = record_of(Gadget(1))
        assert (record["group"], record["name"]) == ("gadgets", "gadgetry")
        assert rebuild(record).size == 1
    finally:
        del sys.modules["repro_fake_shop"]


def test_what_cannot_be_recorded(plug_in):
    with pytest.raises(UserError, match="Gadget cannot be recorded: register it as an entry point of one of "):
        record_of(Gadget(1))
    plug_in(point("gadgets", "Gadget", f"{MODULE}:Gadget"))
    with pytest.raises(UserError, match=r"Gadget\(inner=\.\.\.\) is a Tensor: only plain data"):
        record_of(Gadget(1, inner=torch.zeros(2)))
    with pytest.raises(UserError, match=r"Gadget cannot be recorded: it was built by itself; build it by its name"):
        record_of(object.__new__(Gadget))


def test_a_group_of_another_package_is_one_like_any_other(plug_in):
    plug_in(point("gadgets", "Gadget", f"{MODULE}:Gadget"), point("groups", "lost", f"{MODULE}:VE"))
    assert registry.group_names()[-2:] == ["gadgets", "lost"]
    assert registry.group("gadgets").base == f"{MODULE}:Gadget"
    assert registry.groups_of(Child) == ["gadgets"]
    assert registry.groups_of(Warm) == ["kernels"]
    assert build("gadgets", "Gadget", size=1).size == 1
    with pytest.raises(UserError, match="plug-in group 'lost' cannot be imported from repro_fake_plugin:VE: Attrib"):
        registry.group("lost")


def test_a_class_of_another_base_is_refused_with_the_base_that_it_needs(plug_in):
    plug_in(point("samplers", "Gadget", f"{MODULE}:Gadget"), point("networks", "Gadget", f"{MODULE}:Gadget"))
    with pytest.raises(UserError) as caught:
        load("samplers", "Gadget")
    assert str(caught.value) == (
        "sampler 'Gadget' of package fake-package: repro_fake_plugin:Gadget must derive from "
        "repro.samplers.base.Sampler; it derives from repro.registry.Plugin"
    )
    with pytest.raises(UserError, match=r"must derive from repro.networks.base.Network, or from torch.nn.Module; it"):
        load("networks", "Gadget")


def test_what_a_class_leaves_open_is_named(plug_in):
    plug_in(point("gadgets", "Open", f"{MODULE}:Open"))
    Open.__abstractmethods__ = frozenset({"turn", "halt"})
    with pytest.raises(UserError, match=r"gadget 'Open' .* must define halt, turn, which repro_fake_plugin.Gadget lea"):
        load("gadgets", "Open")


def test_a_plain_module_stands_for_a_network_once_it_is_loaded(plug_in):
    plug_in(point("networks", "Bare", f"{MODULE}:Bare"))
    assert issubclass(load("networks", "Bare"), Network)
    assert not issubclass(nn.Linear, Network)
    built = Bare()
    with pytest.raises(UserError, match=r"Bare cannot be recorded: .* repro.build\('networks', 'Bare', ...\)"):
        record_of(built)


def test_a_class_without_a_constructor_of_its_own_is_recorded(plug_in):
    class Mute(nn.Module, Plugin):
        pass

    Mute.__module__, Mute.__qualname__ = MODULE, "Mute"
    sys.modules[MODULE].Mute = Mute
    plug_in(point("networks", "Mute", f"{MODULE}:Mute"))
    for built in (Mute(), build("networks", "Mute")):
        assert record_of(built) == {"group": "networks", "name": "Mute", "args": {}}
        assert type(rebuild(record_of(built))) is Mute


def test_every_built_in_that_needs_no_argument_comes_back():
    for group in ("kernels", "parameterizations", "samplers", "times"):
        for name in names(group):
            if _needs_arguments(load(group, name)):
                continue
            built = build(group, name)
            record = json.loads(json.dumps(record_of(built)))
            assert record_of(rebuild(record)) == record
            assert type(rebuild(record)) is type(built)


def _needs_arguments(cls: type) -> bool:
    given = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in given)


def test_rebuild_leaves_plain_data_alone():
    plain = {"a": [1, {"group": "kernels"}], "b": None}
    assert rebuild(plain) == plain
    assert isinstance(rebuild([record_of(VP())])[0], VP)


def test_wrong_positional_arguments_are_still_type_errors():
    with pytest.raises(TypeError):
        VP(1, 2, 3, 4)


def test_nearest_and_unknown():
    assert nearest("sogunet", ["UViT", "SongUNet"]) == "SongUNet"
    assert nearest("zzz", ["UViT"]) is None
    assert str(unknown("kernel", "x", [])) == "unknown kernel 'x'; known: none"
