"""Pickles of strangers are read as data: nothing they name runs, no claim takes memory, damage is one line."""

from __future__ import annotations

import argparse
import builtins
import io
import os
import pickle
import random
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from containers import edm_pickle, one_of_each
from torch import nn

import repro
from repro.errors import UserError
from repro.released.importing import import_file
from repro.released.pickles import Record, read_pickled


class Calls:
    """Pickled as a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


class Sets:
    """Pickled as a call whose result is given a state."""

    def __init__(self, function, arguments, state):
        self.parts = function, arguments, state

    def __reduce__(self):
        return self.parts


def bare(*operations):
    """A pickle written by hand."""
    return b"\x80\x04" + b"".join(operations) + b"."


def named(module, name):
    return b"c" + f"{module}\n{name}\n".encode()


def text(value):
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "executed"


def programs(marker):
    """Pickles that would make the marker file, or do worse, in a reader that executes them."""
    touch, write = f"touch {marker}", f"open({str(marker)!r}, 'w')"
    storage = pickle.dumps(Calls(os.system, touch))
    nested = pickle.dumps({"ema": {"shadow_params": [Calls(builtins.eval, write)]}, "model": {}})
    attribute = named("builtins", "getattr") + named("os", "environ") + text("clear") + b"\x86R" + b")R"
    magic = b"".join(pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    return {
        "os.system": pickle.dumps(Calls(os.system, touch)),
        "eval": pickle.dumps(Calls(builtins.eval, write)),
        "exec in a list": pickle.dumps([1, 2, Calls(builtins.exec, write)]),
        "nested": nested,
        "popen as a class": bare(named("subprocess", "Popen"), text(touch), b"\x85\x81"),
        "popen by keywords": bare(named("subprocess", "Popen"), b")", b"}", text("args"), text(touch), b"s\x92"),
        "getattr": bare(attribute),
        "getattr of a namespace": bare(named("argparse", "Namespace.__init__.__globals__"), b")\x81"),
        "dotted class": bare(named("torch.nn.modules.module", "torch.os.system"), text(touch), b"\x85R"),
        "module of torch": bare(named("torch.nn.modules.module", "warnings"), b")R"),
        "class called": bare(named("torch.nn.modules.container", "ModuleDict"), b")R"),
        "function state": pickle.dumps(Sets(builtins.set, ([1],), {"__class__": 1})),
        "state of a function": bare(named("torch._utils", "_rebuild_tensor_v2"), b"}b"),
        "slots": bare(named("argparse", "Namespace"), b")\x81", b"N}\x86b"),
        "instance": b"\x80\x02(" + text(touch) + b"ios\nsystem\n.",
        "object": b"\x80\x02(" + named("os", "system") + text(touch) + b"o.",
        "extension": bare(b"\x82\x01"),
        "storage that executes": pickle.dumps(Calls(torch.storage._load_from_bytes, storage)),
        "storage that names": pickle.dumps(Calls(torch.storage._load_from_bytes, magic + storage)),
        "storage of a storage": pickle.dumps(
            Calls(
                torch.storage._load_from_bytes,
                magic + pickle.dumps(Calls(torch.storage._load_from_bytes, storage)),
            )
        ),
        "torch.load": pickle.dumps(Calls(torch.load, str(marker))),
        "torch hub": bare(named("torch.hub", "load"), text("a/b"), text("c"), b"\x86R"),
        "numpy array": pickle.dumps(np.array([1.0])),
        "numpy objects": pickle.dumps(np.array([Calls(os.system, touch)], dtype=object)),
        "numpy load": bare(named("numpy", "load"), text(str(marker)), b"\x85R"),
        "runpy": bare(named("runpy", "run_path"), text(str(marker)), b"\x85R"),
        "import of a module": bare(named("importlib", "import_module"), text("antigravity"), b"\x85R"),
        "defaultdict": bare(named("collections", "defaultdict"), named("os", "getcwd"), b"\x85R"),
        "partial": bare(named("functools", "partial"), named("os", "system"), b"\x85R"),
        "reduce": bare(named("functools", "reduce"), b")R"),
        "torch class of mine": bare(named("torch.nn.modules.linear", "Linear"), b")\x81", text("x"), b"b"),
    }


NAMES = list(programs("x"))


@pytest.mark.parametrize("form", ["pickle", "old container", "zip", "entry"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_executed(tmp_path, marker, name, form):
    program = programs(marker)[name]
    path = tmp_path / "released.pkl"
    header = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    if form == "pickle":
        path.write_bytes(program)
    elif form == "entry":
        path.write_bytes(b"\x80\x04}" + text("ema") + program[2:].removesuffix(b".") + b"s.")
    elif form == "old container":
        path.write_bytes(b"".join(header) + program + pickle.dumps([], protocol=2))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("released/data.pkl", program)
    for read in (import_file, repro.load):
        with pytest.raises(UserError, match=r"released.pkl") as caught:
            read(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 400
    assert [file.name for file in tmp_path.iterdir()] == ["released.pkl"]


def test_the_line_names_what_was_refused(tmp_path, marker):
    path = tmp_path / "a.pkl"
    for name, told in (("os.system", "posix.system"), ("eval", "builtins.eval"), ("partial", "functools.partial")):
        path.write_bytes(programs(marker)[name])
        with pytest.raises(
            UserError, match=f"a pickle, is of no known format .* it names '{told}', .* nothing of it was"
        ):
            import_file(path)
    path.write_bytes(programs(marker)["extension"])
    with pytest.raises(UserError, match=r"refused to read .*EXT1.*nothing of it was run"):
        import_file(path)
    path.write_bytes(bare(text("a\x1b[31m\u202e"), text("evil"), b"\x93)R"))
    with pytest.raises(UserError, match=r"names 'a\\x1b\[31m\\u202e.evil'"):
        import_file(path)


def test_reading_leaves_the_interpreter_as_it_was(tmp_path, marker):
    code = (
        "import sys; from pathlib import Path; import repro.released.pickles as p\n"
        "before = set(sys.modules)\n"
        "try: p.read_pickled(Path(sys.argv[1]))\n"
        "except ValueError: pass\n"
        "print(sorted(set(sys.modules) - before))"
    )
    path = tmp_path / "a.pkl"
    path.write_bytes(bare(b"(" + named("torch.nn.modules.container", "ModuleDict"), named("antigravity", "x"), b"t"))
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


BOMBS = {
    "laughing tuples": b"N" + b"2\x86" * 200,
    "laughing lists": b"(]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(100)) + b"t",
    "a long integer": b"\x8b" + struct.pack("<I", 1 << 30) + b"\xff" * 64,
    "bytes that are not there": b"\x8e" + struct.pack("<Q", 1 << 60),
    "text that is not there": b"\x8d" + struct.pack("<Q", 1 << 40) + b"abc",
    "a place in the memo": b"Nr" + struct.pack("<I", (1 << 32) - 1),
    "a frame": b"\x95" + struct.pack("<Q", 1 << 62) + b"N",
    "many marks": b"(" * 100_000 + b"N",
    "a deep list": b"]" * 100_000 + b"a" * 99_999,
    "a nested key": b"}" + b"N" + b"2\x86" * 60 + b"Ns",
}


@pytest.mark.parametrize("name", BOMBS)
def test_small_pickles_stay_small(tmp_path, name):
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04" + BOMBS[name] + b".")
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    with pytest.raises(UserError) as caught:
        import_file(path)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "more than 200 MB"


def stored(numel=4, size=(4,), stride=(1,), offset=0, calls=1):
    """A zip file whose one storage has four numbers, and tensors over it that claim what they like."""
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + named("torch", "FloatStorage")
    tensor += text("0") + text("cpu") + b"J" + struct.pack("<i", numel) + b"tQ"
    tensor += b"".join(_integer(n) for n in (offset,)) + b"(" + b"".join(map(_integer, size)) + b"t"
    tensor += b"(" + b"".join(map(_integer, stride)) + b"t\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02(" + tensor * calls + b"t."


def _integer(value):
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def zip_of(path, program, data=bytes(16), compression=zipfile.ZIP_STORED, entry="a/data/0"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        padding = zipfile.ZipInfo("a/data.pkl")
        archive.writestr(padding, program, compress_type=compression)
        aligned = zipfile.ZipInfo(entry)
        start = archive.fp.tell() + 30 + len(entry)
        aligned.extra = struct.pack("<HH", 0x4646, -(start + 4) % 64) + bytes(-(start + 4) % 64)
        archive.writestr(aligned, data, compress_type=compression)
    return path


def test_tensors_lie_inside_their_storages(tmp_path):
    path = tmp_path / "a.pt"
    (tensor,) = read_pickled(zip_of(path, stored(), data=np.arange(4, dtype=np.float32).tobytes()))
    assert tensor.tolist() == [0, 1, 2, 3]
    (tensor,) = read_pickled(zip_of(path, stored(size=(2, 2), stride=(1, 2)), np.arange(4, dtype=np.float32).tobytes()))
    assert tensor.tolist() == [[0, 2], [1, 3]]
    for claim in (
        {"size": (5,)},
        {"size": (1 << 60,), "stride": (0,)},
        {"size": (1 << 20, 1 << 20), "stride": (0, 0)},
        {"offset": 1},
        {"offset": 1 << 62},
        {"offset": -1},
        {"stride": (2,)},
        {"stride": (-1,)},
        {"size": (-4,)},
        {"size": (2, 2)},
        {"size": (1,) * 9, "stride": (1,) * 9},
        {"numel": 5},
        {"numel": (1 << 31) - 1},
        {"numel": -4},
    ):
        with pytest.raises(UserError, match="damaged or cut off"):
            read_pickled(zip_of(path, stored(**claim)))
    with pytest.raises(UserError, match="compressed"):
        read_pickled(zip_of(path, stored(), compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="missing"):
        read_pickled(zip_of(path, stored(), entry="a/data/1"))


def test_weights_that_use_the_same_bytes_many_times(tmp_path):
    """A file of 1 MB that claims 200 networks' worth of memory is refused before any is taken."""
    shared = torch.zeros(1 << 16)
    width = 1 << 8
    tensors = {"time_embed.0.weight": shared.view(width, width), "input_blocks.0.0.weight": torch.zeros(width, 3, 3, 3)}
    tensors |= {f"input_blocks.{i}.0.out_layers.3.weight": shared.view(width, width, 1, 1) for i in range(1, 200)}
    tensors |= {"out.2.weight": torch.zeros(3, 1), "input_blocks.1.0.emb_layers.1.weight": shared.view(512, 128)}
    tensors |= {f"output_blocks.{i}.0.x": shared for i in range(200)}
    torch.save(tensors, tmp_path / "a.pt")
    with pytest.raises(UserError, match=r"tensors claim .* bytes, more than it has"):
        import_file(tmp_path / "a.pt", image_size=8)


def test_modules_that_hold_themselves(tmp_path):
    path = edm_pickle(tmp_path / "a.pkl", "edm_residual_box")
    content = read_pickled(path)
    wrapper = content["ema"]
    assert isinstance(wrapper, Record)
    from repro.released.state_dicts import state_of

    wrapper.state["_modules"]["model"].state["_modules"]["again"] = wrapper
    with pytest.raises(UserError, match="holds itself"):
        state_of(wrapper)


def test_plain_data_come_back_as_they_are(tmp_path):
    path = tmp_path / "a"
    values = [None, True, 1, -(1 << 70), 2.5, float("inf"), "héllo\n", b"bytes", (1, (2,)), [1, [2]], {"a": {1: ()}}]
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps(values, protocol=protocol))
        assert read_pickled(path) == values
    same = [1]
    path.write_bytes(pickle.dumps([same, same]))
    first, second = read_pickled(path)
    assert first is second
    path.write_bytes(pickle.dumps({"set": {1}, "frozen": frozenset("a"), "ordered": OrderedDict(b=1, a=2)}))
    assert read_pickled(path) == {"set": [1], "frozen": ["a"], "ordered": {"b": 1, "a": 2}}


@pytest.mark.parametrize("form", ["zip", "old container", "pickle"])
def test_tensors_of_every_type_come_back_as_they_are(tmp_path, form):
    path = tmp_path / "a"
    base = torch.arange(24).reshape(2, 3, 4)
    kinds = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16)
    tensors = {str(kind): base.to(kind) for kind in (*kinds, torch.int8, torch.uint8, torch.bool)}
    tensors |= {
        "view": base[:, 1:, ::2],
        "turned": base.permute(2, 0, 1),
        "none": torch.empty(0, 3),
        "one": torch.tensor(7),
    }
    tensors |= {"weight": nn.Parameter(torch.randn(3)), "layer": nn.Linear(2, 3).state_dict(), "one": torch.tensor(7)}
    tensors["args"] = argparse.Namespace(lr=1e-4, names=["a"])
    if form == "pickle":
        path.write_bytes(pickle.dumps(tensors))
    else:
        torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
    found = read_pickled(path)
    for name, tensor in tensors.items():
        if isinstance(tensor, torch.Tensor):
            assert found[name].dtype == tensor.dtype
            assert torch.equal(found[name], tensor)
    assert torch.equal(found["layer"]["weight"], tensors["layer"]["weight"])
    assert found["args"] == Record("Namespace", {"lr": 1e-4, "names": ["a"]})


def test_a_foreign_byte_order_is_told(tmp_path):
    old = io.BytesIO()
    torch.save({"a": torch.ones(2)}, old, _use_new_zipfile_serialization=False)
    path = tmp_path / "a"
    where = old.getvalue().index(b"little_endian") + len("little_endian")
    changed = bytearray(old.getvalue())
    changed[changed.index(b"\x88", where)] = 0x89
    path.write_bytes(changed)
    with pytest.raises(UserError, match="big-endian"):
        read_pickled(path)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    files = one_of_each(folder)
    old = folder / "old.pth"
    torch.save(torch.load(files["uvit"][0]), old, _use_new_zipfile_serialization=False)
    return files | {"uvit in the old container": (old, {"heads": 2})}


KINDS = ["edm", "score_sde", "uvit", "dit", "consistency", "multistage", "uvit in the old container"]


def survives(path, options):
    """Whether a file is imported or refused in one line; anything else is an error of ours."""
    told = None
    try:
        import_file(path, **options)
    except UserError as error:
        told = str(error)
    assert told is None or "\n" not in told
    return told is None


@pytest.mark.parametrize("kind", KINDS)
def test_cut_off_files(released, tmp_path, kind):
    path, options = released[kind]
    whole, cut = path.read_bytes(), tmp_path / path.name
    draws = random.Random(0)
    ends = [*range(0, 64, 13), *(draws.randrange(len(whole)) for _ in range(8)), *range(len(whole) - 40, len(whole), 9)]
    for end in sorted(set(ends)):
        cut.write_bytes(whole[:end])
        assert not survives(cut, options), f"{kind} cut at {end} of {len(whole)}"
    cut.write_bytes(whole)
    assert survives(cut, options)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_flipped_bytes(released, tmp_path, kind):
    path, options = released[kind]
    whole, broken = path.read_bytes(), tmp_path / path.name
    draws = random.Random(1)
    places = _where_the_program_is(path, whole)
    start = time.perf_counter()
    for _ in range(60):
        changed = bytearray(whole)
        for place in draws.sample(places, draws.choice((1, 1, 2, 8))):
            changed[place] = draws.randrange(256)
        broken.write_bytes(changed)
        survives(broken, options)
        if time.perf_counter() - start > 1:
            break


def _where_the_program_is(path, whole):
    """Offsets outside of the numbers of tensors, where a flip changes what is asked for."""
    if not zipfile.is_zipfile(path):
        return [place for place in range(len(whole)) if whole[place - 8 : place + 8].count(0) < 12]
    with zipfile.ZipFile(path) as archive:
        (member,) = [each for each in archive.infolist() if each.filename.endswith("data.pkl")]
        end = member.header_offset + member.file_size
        return [*range(member.header_offset, end), *range(archive.start_dir, len(whole))]
