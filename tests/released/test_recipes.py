"""Released files as people keep them: every format in every wrapper loads the same weights, and says whose they are."""

from __future__ import annotations

import argparse
import copy
import datetime
import decimal
import gzip
import itertools
import json
import pickle
import random
import types
import uuid
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from containers import DIFFUSERS, ddpm_tensors, edm_module, edm_modules, foreign, foreign_shapes, one_of_each
from flax_containers import distilled_parameters, flax_bytes, flax_of_score_sde
from safetensors.torch import save_file
from torch import Tensor, nn

import repro
from repro import registry
from repro.banks import Bank
from repro.checkpoints.native import checkpoint_of
from repro.cli.main import main
from repro.errors import UserError
from repro.released import openai_unets
from repro.released.guided_diffusion.format import GuidedDiffusionFormat
from repro.released.importing import AssumedWarning, import_file
from repro.training.source import Source

Change = Callable[[Tensor], Tensor]


def plain(name: str) -> Callable[[Any, Change], Any]:
    """Builds the state dict of a recorded network under the bare names of its project."""
    return lambda _, change: OrderedDict(
        (key.removeprefix("module."), change(tensor)) for key, tensor in foreign(name).items()
    )


def of_flax(tree: Callable[[], Any]) -> Callable[[Any, Change], Any]:
    """Builds a tree of parameters as flax keeps them."""

    def changed(node: Any, change: Change) -> Any:
        return {key: changed(value, change) for key, value in node.items()} if isinstance(node, dict) else change(node)

    return lambda _, change: changed(tree(), change)


def optimised(weights: Any) -> Any:
    """The parameters where score_sde in JAX keeps them, which tells it from the consistency models."""
    return {"optimizer": {"target": weights, "state": {"step": 7}}}


# How the weights of every format are built, the options that their files need, and what tells flax files apart.
FORMATS: dict[str, tuple[Callable[[Any, Change], Any], dict[str, Any]]] = {
    "edm": (lambda edm, change: edm_module(edm, "edm_ncsnpp", change=change), {}),
    "score_sde": (plain("score_sde_ncsnpp_vp"), {"image_size": 8}),
    "uvit": (plain("uvit"), {"heads": 2}),
    "dit": (plain("dit"), {"heads": 2}),
    "consistency": (plain("consistency_blocks"), {"image_size": 8, "channels_per_head": 16}),
    "guided_diffusion": (plain("consistency_conv"), {"image_size": 8, "heads": 2, "schedule": "linear"}),
    "multistage": (plain("multistage_ncsnpp"), {"image_size": 8}),
    "diffusers": (lambda _, change: {name: change(tensor) for name, tensor in ddpm_tensors().items()}, {}),
    "consistency_cifar10": (of_flax(lambda: flax_of_score_sde(foreign("score_sde_ncsnpp_ve"))), {"image_size": 8}),
    "score_sde_jax": (of_flax(lambda: flax_of_score_sde(foreign("score_sde_ncsnpp_vp"))), {"image_size": 8}),
    "diffusion_distillation": (of_flax(distilled_parameters), {"image_size": 8}),
}
FLAX = ("consistency_cifar10", "score_sde_jax", "diffusion_distillation")
PICKLED = ("edm",)


def prefixed(weights: Any, prefix: str) -> Any:
    """The weights with something in front of every name; what has no flat names lies that much deeper."""
    if all(isinstance(value, Tensor) for value in getattr(weights, "values", list)()) and hasattr(weights, "items"):
        return OrderedDict((f"{prefix}{name}", tensor) for name, tensor in weights.items())
    for part in reversed(prefix.rstrip(".").split(".")):
        weights = {part: weights}
    return weights


def beside() -> dict[str, Any]:
    """What trainings keep beside weights: nothing of it is needed, and none of it may decide."""
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    return {
        "optimizer_states": [optimizer.state_dict()],
        "optim": copy.deepcopy(optimizer),
        "lr_schedulers": [scheduler.state_dict()],
        "sched": scheduler,
        "array": np.arange(12.0).reshape(3, 4),
        "object array": np.array([{}, None], dtype=object),
        "numpy number": np.float64(0.5),
        "numpy rng": np.random.get_state(),
        "numpy generator": np.random.default_rng(0),
        "rng": {"python": random.getstate(), "torch": torch.get_rng_state()},
        "path": Path("/data/cifar10"),
        "date": datetime.datetime(2024, 1, 2, 3, 4, tzinfo=datetime.UTC),
        "duration": datetime.timedelta(hours=3),
        "metrics": defaultdict(list, loss=[0.1, 0.2]),
        "counts": Counter("abca"),
        "recent": deque([1.0], maxlen=3),
        "args": argparse.Namespace(lr=1e-4, betas=(0.9, 0.999)),
        "config": {"model": {"name": "unet", "act": nn.SiLU(), "dtype": torch.float16}, "none": None},
        "space": types.SimpleNamespace(a=1),
        "device": torch.device("cpu"),
        "size": torch.Size([3, 32, 32]),
        "set": {1, 2},
        "complex": 1 + 2j,
        "range": range(3),
        "id": uuid.UUID(int=5),
        "decimal": decimal.Decimal("0.1"),
        "function": json.dumps,
        "class": nn.Conv2d,
        "bytes": b"\x00\xff",
        "sparse": torch.eye(3).to_sparse(),
        "epoch": 7,
    }


def beside_in_flax(weights: Any) -> dict[str, Any]:
    """What JAX trainings keep: optax keeps moments under the very names of the weights."""

    def double(node: Any) -> Any:
        return {key: double(value) for key, value in node.items()} if isinstance(node, dict) else 2 * node

    moments = {"0": {"count": 7, "mu": double(weights), "nu": double(weights)}}
    return {"opt_state": moments, "step": 7, "rng": np.zeros(2, np.uint32), "lr": 2e-4, "name": "run", "none": None}


EITHER, AVERAGED, RAW = "may be averaged or raw", "averaged weights", "raw weights|weights of the last step"
Recipe = tuple[Callable[[Any, Any], Any], str]
WRAPPERS: dict[str, Recipe] = {
    **{key: (lambda w, _, key=key: {key: w}, RAW) for key in ("model", "state_dict", "net", "network", "params")},
    **{key: (lambda w, _, key=key: {key: w}, AVERAGED) for key in ("ema", "model_ema", "ema_model", "averaged_model")},
    "nested": (lambda w, _: {"state": {"checkpoint": {"model": w}}}, RAW),
    "in a list": (lambda w, _: {"models": [w]}, RAW),
    "averaged beside raw": (lambda w, other: {"model": other, "ema": w}, AVERAGED),
    "averaged first": (lambda w, other: {"ema": w, "model": other}, AVERAGED),
    "averaged deeper": (lambda w, other: {"model": other, "ema": {"decay": 0.99, "module": w}}, AVERAGED),
    "averaged with a prefix": (lambda w, other: {"model": prefixed(other, "module."), "ema": w}, AVERAGED),
}
PREFIXES: dict[str, Recipe] = {
    "module.": (lambda w, _: prefixed(w, "module."), EITHER),
    "_orig_mod.": (lambda w, _: prefixed(w, "_orig_mod."), EITHER),
    "model.": (lambda w, _: prefixed(w, "model."), EITHER),
    "module._orig_mod.": (lambda w, _: prefixed(w, "module._orig_mod."), EITHER),
    "model.diffusion_model.": (lambda w, _: {"state_dict": prefixed(w, "model.diffusion_model.")}, RAW),
    "ema_model.": (lambda w, _: prefixed(w, "ema_model."), AVERAGED),
    "ema_model. beside online_model.": (
        lambda w, other: {**prefixed(other, "online_model."), **prefixed(w, "ema_model.")},
        AVERAGED,
    ),
}
OBJECTS: dict[str, Recipe] = {
    "objects beside": (lambda w, _: {"model": w, **beside()}, RAW),
    "objects before": (lambda w, _: {**beside(), "ema": w}, AVERAGED),
    "objects in flax": (lambda w, _: {"params": w, **beside_in_flax(w)}, RAW),
    "objects in flax, averaged": (lambda w, other: {**beside_in_flax(w), "params": other, "params_ema": w}, AVERAGED),
}
RECIPES = {"bare": (lambda w, _: w, EITHER)} | WRAPPERS | PREFIXES | OBJECTS


def written(name: str, folder: Path, recipe: Callable[[Any, Any], Any], file: str = "weights.pt", **how: Any) -> Path:
    """Writes a file of a format by a recipe; ``change`` changes the weights, ``form`` is the container."""
    build, change, form = FORMATS[name][0], how.get("change", lambda x: x.clone()), how.get("form", "zip")
    folder.mkdir(exist_ok=True)
    path = folder / file
    if name == "diffusers":
        (folder / "config.json").write_text(json.dumps(DIFFUSERS))
    with edm_modules() as edm:
        weights, other = build(edm, change), build(edm, lambda tensor: 2 * change(tensor))
        if name == "score_sde_jax":
            weights, other = optimised(weights), optimised(other)
        content = recipe(weights, other)
        if name in FLAX:
            path.write_bytes(flax_bytes(content))
        elif form == "safetensors":
            save_file(content, path)
        elif form == "pickle":
            path.write_bytes(pickle.dumps(content))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Fingerprints of the models in the plainest files."""
    folder = tmp_path_factory.mktemp("bare")
    return {name: imported(written(name, folder / name, lambda w, _: w), name).model.fingerprint() for name in FORMATS}


def imported(path: Path, name: str) -> Any:
    held = import_file(path, **FORMATS[name][1])
    assert held.format == name
    return held


def test_every_format_has_recipes() -> None:
    assert set(FORMATS) == set(registry.names("checkpoints"))


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_weights_whatever_lies_around_them(name: str, bare: dict[str, str], tmp_path: Path) -> None:
    for title, (recipe, told) in RECIPES.items():
        if title in OBJECTS and ("flax" in title) != (name in FLAX):
            continue
        if name in FLAX and title == "in a list":  # flax writes lists as mappings
            continue
        held = imported(written(name, tmp_path, recipe), name)
        assert held.model.fingerprint() == bare[name], title
        kinds = RAW + "|" + EITHER if told == EITHER and name in (*FLAX, *PICKLED) else told
        assert any(kind in held.file.found for kind in kinds.split("|")), (title, held.file.found)
        if "beside raw" in title or "beside online" in title:
            assert held.file.raw is not None, title
            assert held.raw_model().fingerprint() != bare[name], title


@pytest.mark.parametrize("name", FORMATS)
def test_every_container(name: str, bare: dict[str, str], tmp_path: Path) -> None:
    forms = [] if name in FLAX else ["zip", "old", "pickle"]
    if name not in (*FLAX, *PICKLED):
        forms.append("safetensors")
    for form in forms:
        held = imported(written(name, tmp_path, lambda w, _: w, form=form), name)
        assert held.model.fingerprint() == bare[name], form
    if name not in PICKLED:
        held = imported(written(name, tmp_path, lambda w, _: w, "model-ema.bin"), name)
        assert AVERAGED in held.file.found or name in FLAX


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float16) for name in FORMATS]
    + [(name, torch.bfloat16) for name in FORMATS if name not in FLAX],  # numpy, which writes those, has no bfloat16
)
def test_half_precision_is_read_as_it_is_rounded(name: str, dtype: torch.dtype, tmp_path: Path) -> None:
    def half(tensor: Tensor) -> Tensor:
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    short = imported(written(name, tmp_path / "short", lambda w, _: {"model": w}, change=half), name)
    rounded = written(name, tmp_path / "long", lambda w, _: {"model": w}, change=lambda tensor: half(tensor).float())
    assert short.model.fingerprint() == imported(rounded, name).model.fingerprint()
    assert {tensor.dtype for tensor in short.model.parameters()} == {torch.float32}


def test_average_of_torch(bare: dict[str, str], tmp_path: Path) -> None:
    """The state dict of ``torch.optim.swa_utils.AveragedModel``."""

    def averaged(weights: Any, _: Any) -> Any:
        return {"n_averaged": torch.tensor(7), **prefixed(weights, "module.")}

    for name in ("uvit", "consistency", "diffusers", "score_sde"):
        held = imported(written(name, tmp_path / name, averaged), name)
        assert (AVERAGED in held.file.found, held.model.fingerprint()) == (True, bare[name])


KINDS = {
    "gzip": (gzip.compress(b"weights"), "it is a gzip archive; unpack it first"),
    "page": (
        b"<!DOCTYPE html><html><head>",
        "it is a web page, not the weights; the download was answered",
    ),
    "page in capitals": (b"\n<HTML>", "it is a web page"),
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n",
        "a pointer of git-lfs.*git lfs pull",
    ),
    "zstd": (b"\x28\xb5\x2f\xfd1234", "it is a compressed archive"),
    "tar": (b"\0" * 257 + b"ustar" + b"\0" * 250, "it is a tar archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    "numpy": (b"\x93NUMPY\x01\0", "it is a numpy array"),
    "picture": (b"\x89PNG\r\n\x1a\n", "it is an image; name the file with the weights"),
    "text": (b'{"a": 1}', "it is a text file in JSON"),
    "empty": (b"", "is empty"),
    "safetensors, cut off": (b"\x10\0\0\0\0\0\0\0{not a header  }", "a safetensors file: damaged or cut off"),
    "msgpack, cut off": (b"\x81\xa6params\xde\x00", "a msgpack file: damaged or cut off"),
    "zip": (b"PK\x03\x04" + b"\0" * 40, "damaged or cut off"),
    "words": (b"weights", "neither a pickle nor a file of torch.save, safetensors or flax"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_called_what_they_are(kind: str, tmp_path: Path) -> None:
    content, message = KINDS[kind]
    path = tmp_path / "weights.pt"
    path.write_bytes(content)
    for read in (import_file, repro.load):
        with pytest.raises(UserError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict[str, Any]]]:
    return one_of_each(tmp_path_factory.mktemp("released"))


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_assumed_is_told_and_kept(name: str, files: dict[str, tuple[Path, dict[str, Any]]]) -> None:
    """However it is read: loading warns, the origin (which manifests hold) and the record of a run name every value."""
    path, options = files[name]
    held = import_file(path, **options)
    words = [f"--{option} {str(value).replace(' ', '')}" for option, value in held.file.assumed.items()]
    if words:
        with pytest.warns(AssumedWarning) as caught:
            model = repro.load(path, **options)
        assert all(word in str(caught[0].message) for word in words)
    else:
        model = repro.load(path, **options)
    assert all(word in (model.origin or "") for word in words)
    assert checkpoint_of(held)["repro"]["imported"]["assumed"] == held.file.assumed
    if "kernel" in (choices := vars(registry.build("checkpoints", name))) and "kernel" not in options:
        assert "kernel" in held.file.assumed, "no file tells its kernel"
    assert not set(held.file.assumed) - set(choices)


def test_commands_tell_what_was_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for file in ("a.pth", "b.pth"):
        written("score_sde", tmp_path, lambda w, _: w, file)
    told = "a.pth (ncsnpp, weights that may be averaged or raw) does not say everything: assumed --kernel VP"
    short = ["--sampler", "Euler", "--sampler.steps", "1"]
    for words in (
        ["predict", "--ckpt_path", "a.pth", "--seeds", "0-1", "--output", "drawn", *short],
        ["test", "--ckpt_path", "a.pth", "--seeds", "0-1", "--descriptor", "Pixels", "--reference", "drawn", *short],
        ["compare", "a.pth", "b.pth", "--seeds", "0-1", "--descriptor", "Pixels", "--output", "matrix"],
        ["import", "a.pth"],
    ):
        code = main(words)
        error = capsys.readouterr().err
        assert (code, told in error) == (0, True), (words, error)
    bank = Bank.open("drawn")
    assert "assumed --kernel VP --image_size 32" in bank.manifest.source
    assert "assumed --kernel VP --image_size 32" in (repro.load("runs/imported/a-2").origin or "")
    for role in ("start", "teacher"):
        with pytest.warns(AssumedWarning, match="assumed --kernel VP"):
            assert Source("a.pth", role).denoiser.image_shape == (3, 32, 32)


CLASS_TABLES = [("dit", rows) for rows in (10, 100, 1000)] + [("uvit", rows) for rows in (11, 101)]


@pytest.mark.parametrize(("name", "rows"), CLASS_TABLES)
def test_which_row_is_no_class_is_asked_where_shapes_cannot_tell(name: str, rows: int, tmp_path: Path) -> None:
    table = {"dit": "y_embedder.embedding_table.weight", "uvit": "label_emb.weight"}[name]

    def with_rows(weights: Any, _: Any) -> Any:
        width = {"dit": "t_embedder.mlp.0.bias", "uvit": "norm.weight"}[name]
        changed = {**weights, table: torch.ones(rows, len(weights[width]))}
        if name == "uvit" and table not in weights:  # a token for the class
            changed["pos_embed"] = torch.cat([weights["pos_embed"][:, :1], weights["pos_embed"]], dim=1)
        return changed

    path = written(name, tmp_path, with_rows)
    why = rf"null class \(its class table has {rows} rows: {rows} classes, or one fewer and 'no class'\?\)"
    with pytest.raises(UserError, match=rf"does not say its {why}; type --null_class VALUE"):
        import_file(path, heads=2)
    classes = {null: import_file(path, heads=2, null_class=null).model.num_classes for null in (False, True)}
    assert classes == {False: rows, True: rows - 1}


def test_addresses_are_one_line_or_the_cached_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cached = written("score_sde", tmp_path, lambda w, _: w, "a.pth")
    monkeypatch.chdir(tmp_path)
    short = ["--sampler", "Euler", "--sampler.steps", "1"]
    for address, message in (
        ("https://host/a.pth", "is an address; download it first, and name the file: curl -LO https://host/a.pth"),
        (
            "hf://owner/name/b.pth",
            "is not in the cache of huggingface_hub; download it first: hf download owner",
        ),
        ("hf://owner", "names no file on the hub; write hf://owner/name/file"),
    ):
        for words in (["predict", "--ckpt_path", address, "--seeds", "0"], ["compare", address, "a.pth"]):
            code, error = main(words), capsys.readouterr().err
            assert (code, message in error, error.count("\n")) == (2, True, 1), (words, error)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pth"]
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(cached))
    assert main(["predict", "--ckpt_path", "hf://owner/name/a.pth", "--seeds", "0", *short]) == 0
    assert "sha256" in Bank.open("runs/imported/a/banks/unconditional_0").manifest.source


def heads_first(weights: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """The tensors with the rows of every query, key and value in the order of the projects' older attention."""
    changed = dict(weights)
    for name, tensor in weights.items():
        if ".qkv." in name:
            width, size = len(tensor) // 3, len(tensor) // 3 // heads
            places = [(head, part, channel) for head in range(heads) for part in range(3) for channel in range(size)]
            changed[name] = tensor[[part * width + head * size + channel for head, part, channel in places]]
    return changed


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_whose_heads_come_first(heads: int, tmp_path: Path) -> None:
    options = {"image_size": 8, "schedule": "linear", "heads": heads}
    new = written("guided_diffusion", tmp_path, lambda w, _: w, "new.pt")
    old = written("guided_diffusion", tmp_path, lambda w, _: heads_first(w, heads), "old.pt")
    expected = import_file(new, attention_order="new", **options).model.fingerprint()
    held = import_file(old, **options)
    assert (held.model.fingerprint(), held.file.assumed) == (expected, {"attention_order": "legacy"})


PUBLISHED_ADM = {
    "64x64_diffusion.pt": (64, [1, 2, 3, 4], 192, 3, "block", "cosine", {"channels_per_head": 64}),
    "128x128_diffusion.pt": (128, [1, 1, 2, 3, 4], 256, 2, "block", "linear", {"num_heads": 4}),
    "256x256_diffusion.pt": (256, [1, 1, 2, 2, 4, 4], 256, 2, "block", "linear", {"channels_per_head": 64}),
    "512x512_diffusion.pt": (512, [0.5, 1, 1, 2, 2, 4, 4], 256, 2, "block", "linear", {"channels_per_head": 64}),
    "cifar10_uncond_50M_500K.pt": (32, [1, 2, 2, 2], 128, 3, "conv", "cosine", {"num_heads": 4}),
}


@pytest.mark.parametrize("file", PUBLISHED_ADM)
def test_published_sizes_of_adm_are_recognised(file: str) -> None:
    size, mults, width, blocks, change, schedule, heads = PUBLISHED_ADM[file]
    args = {"image_size": size, "channels": 3, "out_channels": 6, "width": width, "channel_mult": mults}
    args |= {"num_blocks": blocks, "resample": change, "min_group": 1} | heads
    tensors = foreign_shapes(openai_unets, {"name": "ADM", "args": args})
    held = types.SimpleNamespace(path=file, assumed={})
    unet, usual = GuidedDiffusionFormat().unet_of(held, tensors)
    again = openai_unets.settings(unet)["args"]
    assert {key: again[key] for key in args} == args
    assert usual.schedule == schedule
    assert held.assumed.keys() == {"image_size", "heads" if "num_heads" in heads else "channels_per_head"}


def test_learned_variance_is_dropped(tmp_path: Path) -> None:
    held = imported(written("guided_diffusion", tmp_path, lambda w, _: w), "guided_diffusion")
    assert "a learned variance, which is dropped" in held.file.found
    network, kernel = held.model.denoiser.network, held.model.denoiser.kernel
    x, t = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        answer = network(x.float(), torch.full((2,), 399.0))
        expected = (x - kernel.sigma(t) * answer[:, :3].double()) / kernel.alpha(t)
        assert answer.shape == (2, 6, 8, 8)
        torch.testing.assert_close(held.model.denoiser.denoise(x, t), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_optimisers_of_jax_never_count_as_weights(count: int, bare: dict[str, str], tmp_path: Path) -> None:
    for name, order in itertools.product(("consistency_cifar10", "diffusion_distillation"), (1, -1)):

        def shuffled(w: Any, _: Any, order: int = order) -> Any:
            parts = [*beside_in_flax(w).items(), ("params", w)][::order]
            return {"state": dict(parts)} if count == 3 else dict(parts)

        assert imported(written(name, tmp_path, shuffled), name).model.fingerprint() == bare[name]
