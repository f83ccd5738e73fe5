"""Records: what an object was built with, and the same object again; nothing else is built from a file."""

from __future__ import annotations

import inspect
import json
import sys
import types

import pytest
import torch
from fake_plugins import MODULE, Child, Gadget, Grandchild, point
from torch import nn

from repro.errors import UserError
from repro.kernels import VP
from repro.records import differences, flat, nested, rebuild, record_of
from repro.registry import Plugin, build, load, names

VP_RECORD = {"group": "kernels", "name": "VP", "args": {}}


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
        "untold": None,
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


def gadget(**arguments):
    return {"group": "gadgets", "name": "Gadget", "args": {"size": 1} | arguments}


def test_only_what_asks_for_an_object_gets_one(plug_in):
    plug_in(point("gadgets", "Gadget", f"{MODULE}:Gadget"))
    assert isinstance(rebuild(gadget(inner=VP_RECORD)).inner, VP)
    assert isinstance(rebuild(gadget(untold=[VP_RECORD])).untold[0], VP)
    assert rebuild(gadget(table=VP_RECORD)).table == VP_RECORD
    assert rebuild(gadget(table={"a": VP_RECORD})).table == {"a": VP_RECORD}
    assert rebuild(gadget(colour=VP_RECORD)).more == {"colour": VP_RECORD}
    for plain in ({"a": [1, VP_RECORD]}, [VP_RECORD], None, 3):
        assert rebuild(plain) == plain


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (gadget(size="x"), r"Gadget.size is 'x'; it must be int"),
        (gadget(size=None), r"Gadget.size is None; it must be int"),
        (gadget(factor=True), r"Gadget.factor is True; it must be float"),
        (gadget(flags=3), r"Gadget.flags is 3; it must be list"),
        (gadget(table=[1]), r"Gadget.table is \[1\]; it must be "),
        (gadget(inner="VP"), r"Gadget.inner is 'VP'; it must be "),
        (
            gadget(inner={"group": "samplers", "name": "Heun", "args": {}}),
            r"Gadget.inner is 'Heun', one of samplers",
        ),
        (gadget(inner={"group": "kernles", "name": "VP", "args": {}}), r"'kernles'; did you mean 'kernels'"),
        (gadget(inner={"group": [], "name": "VP", "args": {}}), r"unknown plug-in group of Gadget.inner"),
        (gadget(inner=VP_RECORD | {"args": {"rate_max": "x"}}), r"VP.rate_max is 'x'; it must be float"),
        (gadget(inner=VP_RECORD | {"args": []}), r"a record is .*; it has a group, a name and a mapping"),
        (gadget(inner=VP_RECORD | {"name": {}}), r"a record is "),
        (gadget() | {"args": {}}, r"record of Gadget has no size"),
        (
            VP_RECORD | {"args": {"rate_min": float("nan"), "rate_max": 10**400}},
            r"record of VP cannot be built",
        ),
    ],
)
def test_a_record_is_checked_before_anything_is_built(plug_in, record, message):
    plug_in(point("gadgets", "Gadget", f"{MODULE}:Gadget"))
    with pytest.raises(UserError, match=message) as caught:
        rebuild(record)
    assert "\n" not in str(caught.value)


def test_the_group_is_the_one_that_is_asked_for():
    assert isinstance(rebuild(VP_RECORD, "networks", "kernels"), VP)
    with pytest.raises(UserError, match="record of VP is one of kernels; here it must be one of data or models"):
        rebuild(VP_RECORD, "data", "models")


def test_a_record_of_somebody_else_reaches_nothing_outside(plug_in):
    class Reader(Gadget):
        inside = types.MappingProxyType({"path": None, "fetch": False})

        def __init__(self, path: str | None = None, fetch: bool = True, then: Gadget | None = None):
            self.path, self.fetch, self.then = path, fetch, then

    Reader.__module__, Reader.__qualname__ = MODULE, "Reader"
    sys.modules[MODULE].Reader = Reader
    plug_in(point("gadgets", "Reader", f"{MODULE}:Reader"))

    def record(**arguments):
        return {"group": "gadgets", "name": "Reader", "args": arguments}

    assert rebuild(record(path="/x")).path == "/x"
    assert rebuild(record(path=None), reach=False).fetch is False
    assert rebuild(record(fetch=True, then=record(fetch=True)), reach=False).then.fetch is False
    for outside in (record(path="/x"), record(then=record(path="/x"))):
        with pytest.raises(UserError, match="Reader names path '/x', outside of the file that it came with"):
            rebuild(outside, reach=False)


def test_settings_of_a_wrong_form_are_told_and_not_lost():
    assert flat({"class_path": "MLP", "init_args": "text"}, "network") == {
        "network": "MLP",
        "network.init_args": "text",
    }


def test_both_forms_of_settings_are_the_same_settings():
    record = {"group": "networks", "name": "MLP", "args": {"width": 8, "inner": VP_RECORD}}
    config = {"class_path": "MLP", "init_args": {"width": 8, "inner": {"class_path": "VP"}}}
    assert flat(record, "network") == {"network": "MLP", "network.width": 8, "network.inner": "VP"}
    assert differences(record, config, "network") == {}
    assert differences(record, config | {"class_path": "UViT"}, "network") == {"network": ("MLP", "UViT")}


def test_settings_nest_as_configs_do():
    assert nested({"a.b": "C", "a.b.c": "D", "a.b.c.d": 1, "a.e": None, "f": [2]}) == {
        "a": {"b": {"class_path": "C", "init_args": {"c": {"class_path": "D", "init_args": {"d": 1}}}}, "e": None},
        "f": [2],
    }
