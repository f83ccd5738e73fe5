"""Released files in small: recorded foreign tensors, wrapped as the public projects wrap theirs."""

from __future__ import annotations

import argparse
import contextlib
import json
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import recorded_transformers
import recorded_unets
import torch
from flax_containers import consistency_cifar10_file, distilled_file, score_sde_jax_file
from safetensors.torch import save_file
from torch import Tensor, nn

from repro import registry
from repro.released import openai_unets as consistency, song_unets as score_sde
from repro.released.diffusers import layout as diffusers_layout
from repro.released.dit import layout as dit
from repro.released.multistage import layout as multistage_layout
from repro.released.uvit import layout as uvit

UNETS, TRANSFORMERS = recorded_unets.cases(), recorded_transformers.cases()
OUTPUTS = recorded_unets.outputs() | recorded_transformers.outputs()
CASES = UNETS | TRANSFORMERS
SOURCE = "import os\nos.system('touch executed')\nraise SystemExit('the source text of a pickle was executed')\n"


def foreign(name: str) -> dict[str, Tensor]:
    """Recorded tensors of a case under their released names, as float32."""
    recorded = recorded_unets if name in UNETS else recorded_transformers
    return {key: tensor.float() for key, tensor in recorded.foreign(CASES[name]).items()}


def inputs(name: str) -> tuple[Tensor, Tensor, Tensor | None]:
    """Images, noise levels and labels of a case."""
    if name in TRANSFORMERS:
        return recorded_transformers.inputs(CASES[name])
    given = recorded_unets.inputs(CASES[name])
    return given["x"], given["noise_level"], given["labels"]


def augment_labels(name: str) -> Tensor | None:
    """Augmentation vectors of a case of EDM."""
    return recorded_unets.inputs(CASES[name])["augment_labels"]


@contextlib.contextmanager
def edm_modules() -> Iterator[Any]:
    """The two modules of NVlabs/edm whose names are in its pickles, while one is written."""

    def _reconstruct_persistent_obj(meta: dict) -> None:
        raise AssertionError("a pickle was executed")

    class EasyDict(dict):
        pass

    _reconstruct_persistent_obj.__module__, EasyDict.__module__ = "torch_utils.persistence", "dnnlib.util"
    _reconstruct_persistent_obj.__qualname__, EasyDict.__qualname__ = "_reconstruct_persistent_obj", "EasyDict"
    names = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")
    modules = {name: types.ModuleType(name) for name in names}
    modules["torch_utils.persistence"]._reconstruct_persistent_obj = _reconstruct_persistent_obj
    modules["dnnlib.util"].EasyDict = EasyDict
    sys.modules.update(modules)
    try:
        yield types.SimpleNamespace(reconstruct=_reconstruct_persistent_obj, EasyDict=EasyDict)
    finally:
        for name in names:
            del sys.modules[name]


class Persistent:
    """Pickled as NVlabs/edm pickles the instances of its decorated classes."""

    def __init__(self, edm: Any, name: str, state: dict[str, Any]) -> None:
        self.edm, self.name, self.state = edm, name, state

    def __reduce__(self) -> Any:
        meta = {"type": "class", "version": 6, "module_src": SOURCE, "class_name": self.name, "state": self.state}
        return self.edm.reconstruct, (meta,), None


def _module(edm: Any, tensors: dict[str, Tensor], name: str, arguments: dict[str, Any], inner: str) -> Any:
    parameters, buffers, parts = OrderedDict(), OrderedDict(), {}
    for key, tensor in tensors.items():
        first, _, rest = key.partition(".")
        if rest:
            parts.setdefault(first, {})[rest] = tensor
        elif key in ("u", "freqs", "resample_filter"):
            buffers[key] = tensor
        else:
            parameters[key] = nn.Parameter(tensor)
    block = {"skip_scale": np.sqrt(0.5), "init": {"init_weight": np.sqrt(0.2)}, "eps": 1e-6}
    modules = OrderedDict(
        (key, _module(edm, part, inner if key == "model" else "UNetBlock", block, inner)) for key, part in parts.items()
    )
    if not parameters and not buffers and name == "UNetBlock":
        plain = nn.ModuleDict()
        plain.__dict__["_modules"] = modules
        return plain
    state = {"training": False, "_parameters": parameters, "_buffers": buffers, "_modules": modules}
    state |= {"_backward_hooks": OrderedDict(), "_non_persistent_buffers_set": {"x"}, "skip_scale": np.sqrt(0.5)}
    return Persistent(edm, name, state | {"_init_args": (), "_init_kwargs": arguments})


def edm_module(
    edm: Any, name: str, wrapper: str = "", change: Callable[[Tensor], Tensor] = lambda tensor: tensor, **changes: Any
) -> Any:
    """A pickled module of EDM, or of its multistage fork, around a case's tensors; inside :func:`edm_modules`."""
    case = CASES[name]
    arguments = {key: float("inf") if value == "inf" else value for key, value in case["record"].items()} | changes
    wrapper = wrapper or arguments.get("class_name", "EDMPrecond").rpartition(".")[2]
    arguments.pop("class_name", None)
    tensors = {key if key.startswith("model.") else f"model.{key}": value for key, value in foreign(name).items()}
    tensors |= {"model.enc.8x8_block0.conv0.resample_filter": torch.ones(1, 1, 2, 2) / 4}
    if wrapper == "iDDPMPrecond":
        tensors["u"] = torch.linspace(100, 0, 1001)
    tensors = {key: change(tensor) for key, tensor in tensors.items()}
    return _module(edm, tensors, wrapper, arguments, arguments["model_type"])


def edm_pickle(
    path: Path, name: str, wrapper: str = "", protocol: int = 4, training_state: bool = False, **changes: Any
) -> Path:
    """A snapshot of EDM, or of its multistage fork, around a case's tensors; or a training state, by torch.save."""
    with edm_modules() as edm:
        content = {
            "ema": edm_module(edm, name, wrapper, **changes),
            "loss_fn": Persistent(edm, "EDMLoss", {"P_mean": -1.2}),
            "augment_pipe": Persistent(edm, "AugmentPipe", {"p": 0.12, "device": torch.device("cpu")}),
            "dataset_kwargs": edm.EasyDict(path="cifar10.zip", resolution=32),
        }
        if training_state:
            torch.save({"net": content["ema"], "optimizer_state": {"state": {}, "param_groups": []}}, path)
        else:
            path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def score_sde_checkpoint(path: Path, name: str, zipped: bool = True) -> Path:
    """A training checkpoint of score_sde: the averaged list holds the case's tensors, ``model`` none of the trained."""
    tensors, case = foreign(name), CASES[name]
    plain = {key.removeprefix("module."): tensor for key, tensor in tensors.items()}
    frozen = {key.removeprefix("module.") for key in case.get("frozen", [])}
    trained = case.get("trained") or [key for key in plain if key not in frozen]
    zeroed = {key for key in plain if key in trained or key.startswith("final_layer.")}
    raw = {f"module.{key}": torch.zeros_like(value) if key in zeroed else value for key, value in plain.items()}
    model = case["record"]["model"]
    if "sigma_min" in model:
        levels = np.exp(np.linspace(np.log(model["sigma_max"]), np.log(model["sigma_min"]), model["num_scales"]))
        raw["module.sigmas"] = torch.tensor(levels)
    state = {index: {"step": 7, "exp_avg": torch.zeros(3)} for index in range(2)}
    content = {
        "optimizer": {"state": state, "param_groups": [{"lr": 2e-4, "betas": (0.9, 0.999), "params": [0, 1]}]},
        "model": OrderedDict(raw),
        "ema": {"decay": 0.9999, "num_updates": 7, "shadow_params": [plain[key] for key in trained]},
        "step": 7,
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def state_dict_file(path: Path, name: str, zipped: bool = True) -> Path:
    """A plain state dict."""
    torch.save(OrderedDict(foreign(name)), path, _use_new_zipfile_serialization=zipped)
    return path


def dit_checkpoint(path: Path, name: str) -> Path:
    """A training checkpoint of DiT, with the namespace of its command line; its raw weights are twice the averaged."""
    tensors = foreign(name)
    raw = {key: tensor if key == "pos_embed" else 2 * tensor for key, tensor in tensors.items()}
    arguments = argparse.Namespace(model="DiT-S/2", image_size=256, vae="ema", global_seed=0)
    torch.save({"model": raw, "ema": OrderedDict(tensors), "opt": {"state": {}}, "args": arguments}, path)
    return path


DIFFUSERS = {"sample_size": 8, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
DIFFUSERS |= {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}


def ddpm_tensors() -> dict[str, Tensor]:
    """The weights of a small DDPM network at random, under the names of diffusers; its settings are ``DIFFUSERS``."""
    draws = torch.Generator().manual_seed(0)
    shapes = foreign_shapes(diffusers_layout, diffusers_layout.settings(DIFFUSERS))
    return {name: torch.randn(shape.shape, generator=draws) * 0.2 for name, shape in shapes.items()}


def diffusers_folder(folder: Path) -> Path:
    """The weights of that network, in a folder with its settings."""
    for part in ("unet", "scheduler"):
        (folder / part).mkdir(parents=True)
    (folder / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    (folder / "unet/config.json").write_text(json.dumps(DIFFUSERS))
    (folder / "scheduler/scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    save_file(ddpm_tensors(), path := folder / "unet/diffusion_pytorch_model.safetensors")
    return path


def one_of_each(folder: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    """A file of every format, by the format's name, with the options that it needs."""
    return {
        "edm": (edm_pickle(folder / "edm.pkl", "edm_ncsnpp"), {}),
        "score_sde": (score_sde_checkpoint(folder / "score_sde.pth", "score_sde_ncsnpp_vp"), {"image_size": 8}),
        "uvit": (state_dict_file(folder / "uvit.pth", "uvit"), {"heads": 2}),
        "dit": (dit_checkpoint(folder / "dit.pt", "dit"), {"heads": 2}),
        "consistency": (
            state_dict_file(folder / "cd.pt", "consistency_blocks"),
            {"image_size": 8, "channels_per_head": 16},
        ),
        "multistage": (score_sde_checkpoint(folder / "ms.pth", "multistage_ncsnpp"), {"image_size": 8}),
        "consistency_cifar10": (
            consistency_cifar10_file(folder / "checkpoint_80", foreign("score_sde_ncsnpp_ve")),
            {"image_size": 8},
        ),
        "score_sde_jax": (
            score_sde_jax_file(folder / "checkpoint_26", foreign("score_sde_ncsnpp_vp")),
            {"image_size": 8},
        ),
        "guided_diffusion": (
            state_dict_file(folder / "adm.pt", "consistency_conv"),
            {"image_size": 8, "heads": 2, "schedule": "linear"},
        ),
        "diffusers": (diffusers_folder(folder / "ddpm"), {}),
        "diffusion_distillation": (distilled_file(folder / "cifar_4"), {"image_size": 8}),
    }


def foreign_shapes(layout: Any, record: dict[str, Any]) -> dict[str, Tensor]:
    """Names and shapes (tensors without memory) of a released file, of any size, for the network of a record."""
    with torch.device("meta"):
        network = registry.build("networks", record["name"], **record["args"])
    tables = {
        score_sde: score_sde._table,
        multistage_layout: multistage_layout._score_sde_table,
        consistency: consistency._entries,
        uvit: uvit.single_decoder_entries,
        dit: dit._entries,
        diffusers_layout: diffusers_layout._entries,
    }
    ours, found = network.state_dict(), {}
    for entry in tables[layout](network):
        shapes = [tuple(ours[name].shape) for name in entry.ours]
        if len(entry.foreign) == 6:
            (_, channels), _ = shapes
            shapes = [(channels, channels), (channels,)] * 3
        elif entry.foreign[0].endswith(".W") and len(entry.foreign) == 2:
            shapes = [shapes[0][1::-1], shapes[1]]
        elif len(entry.foreign) == 3:
            shapes = [(shapes[0][0] // 3, *shapes[0][1:])] * 3
        elif layout is consistency and entry.foreign == ("label_emb.weight",):
            shapes = [shapes[0][::-1]]
        found |= {name: torch.empty(shape, device="meta") for name, shape in zip(entry.foreign, shapes, strict=True)}
    return found
