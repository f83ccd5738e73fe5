"""The registry: entry points to classes, mistakes told by name, records that rebuild."""

import subprocess
import sys

import pytest
from fake_plugins import MODULE, Bare, Child, Open, Warm, point
from torch import nn

from repro import registry
from repro.errors import UserError, nearest, unknown
from repro.kernels import VE, VP
from repro.networks.base import Network
from repro.records import rebuild, record_of
from repro.registry import build, entries, load, names


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


def test_wrong_positional_arguments_are_still_type_errors():
    with pytest.raises(TypeError):
        VP(1, 2, 3, 4)


def test_nearest_and_unknown():
    assert nearest("sogunet", ["UViT", "SongUNet"]) == "SongUNet"
    assert nearest("zzz", ["UViT"]) is None
    assert str(unknown("kernel", "x", [])) == "unknown kernel 'x'; known: none"


def test_names_of_records_are_still_found_where_plug_ins_import_them():
    from repro import records, registry

    assert registry.record_of is records.record_of
    assert registry.rebuild is records.rebuild
    with pytest.raises(AttributeError, match="no attribute 'record'"):
        _ = registry.record
