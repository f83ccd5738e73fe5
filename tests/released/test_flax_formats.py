"""Flax files of JAX projects become models that answer as recorded, or as their program written out plainly."""

from __future__ import annotations

import math

import msgpack
import numpy as np
import pytest
import torch
from containers import OUTPUTS, foreign, inputs
from flax_containers import (
    consistency_cifar10_file,
    distilled_file,
    distilled_parameters,
    doubled,
    flax_bytes,
    score_sde_jax_file,
)
from torch.nn import functional as F

from repro import registry
from repro.errors import UserError
from repro.released.diffusion_distillation.format import ddim
from repro.released.flax_files import read_flax
from repro.released.importing import import_file


def error(ours, expected):
    return ((ours.double() - expected.double()).abs().max() / expected.abs().max()).item()


def answer(network, name):
    x, level, _ = inputs(name)
    with torch.no_grad():
        return network.double()(x, level)


@pytest.mark.parametrize("old_norms", [False, True])
@pytest.mark.parametrize("target", [False, True])
def test_consistency_models_for_cifar10(tmp_path, target, old_norms):
    name = "score_sde_ncsnpp_ve"
    path = consistency_cifar10_file(tmp_path / "checkpoint_80", foreign(name), target, old_norms=old_norms)
    function = import_file(path, image_size=8)
    assert function.file.assumed == {"use": "consistency"}
    assert function.file.found == "NCSN++ of width 8, as a consistency function, averaged weights"
    x, sigma, _ = inputs(name)
    network = function.model.denoiser.network.double()
    ratio = sigma[:, None, None, None]
    shown = x / (ratio**2 + 0.25).sqrt()
    # Recorded is the score of the same network: its output over the noise level whose logarithm it was shown.
    recorded = OUTPUTS[name] * sigma[:, None, None, None]
    assert error(network(2 * x - 1, sigma.log()), recorded) < 2e-5
    above, output = ratio - 0.002, network(shown, sigma.log() / 4)
    expected = 0.25 / (above**2 + 0.25) * x + 0.5 * above / (ratio**2 + 0.25).sqrt() * output
    assert error(function.model.denoiser.denoise(x, sigma), expected) < 1e-6
    folder = tmp_path / "edm"
    folder.mkdir()
    teacher = import_file(path.rename(folder / path.name), image_size=8).model
    expected = 0.25 / (ratio**2 + 0.25) * x + 0.5 * ratio / (ratio**2 + 0.25).sqrt() * output
    assert error(teacher.denoiser.double().denoise(x, sigma), expected) < 1e-6
    assert (function.model.sampler.evaluations, teacher.sampler.evaluations) == (1, 35)


NETWORKS = {
    "score_sde_ncsnpp_vp": "ResnetBlockBigGANpp",
    "score_sde_ddpmpp": "ResnetBlockBigGANpp",
    "score_sde_ddpm": "ResnetBlockDDPM",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_score_sde_in_jax(tmp_path, name):
    path = score_sde_jax_file(tmp_path / "checkpoint_26", foreign(name), blocks=NETWORKS[name])
    imported = import_file(path, image_size=8)
    assert imported.format == "score_sde_jax"
    assert imported.file.assumed["kernel"] == "VP"
    assert error(answer(imported.model.denoiser.network, name), OUTPUTS[name]) < 2e-5


def test_score_sde_in_jax_under_ve(tmp_path):
    name = "score_sde_ncsnpp_ve"
    imported = import_file(score_sde_jax_file(tmp_path / "checkpoint_26", foreign(name)), image_size=8)
    assert imported.file.assumed == {"kernel": "VE", "sigma_max": 50.0, "centred": False}
    denoiser = imported.model.denoiser.double()
    x, sigma, _ = inputs(name)
    t = denoiser.kernel.time_of_ratio(2 * sigma)
    assert error(2 * denoiser.score(2 * x - 1, t), OUTPUTS[name]) < 2e-5


def test_levels_of_one_width_leave_attention_open(tmp_path):
    tree = {"params_ema": _equal_widths(), "params": doubled(_equal_widths())}
    path = tmp_path / "checkpoint_74"
    path.write_bytes(flax_bytes(tree))
    with pytest.raises(UserError, match=r"attention at \(its layers fit \[8\] or \[4\]\); type --attention_at VALUE"):
        import_file(path, image_size=8)
    networks = {size: import_file(path, image_size=8, attention_at=[size]).model.denoiser.network for size in (8, 4)}
    assert [networks[8].attention_at, networks[4].attention_at] == [(8,), (4,)]
    assert import_file(path).file.assumed["attention_at"] == [16]
    with pytest.raises(UserError, match=r"attention_at is \[2\]; the layers of .* fit \[8\] or \[4\]"):
        import_file(path, image_size=8, attention_at=[2])


def _equal_widths():
    """A network of ours with two resolutions of one width, as its flax form."""
    from flax_containers import flax_of_score_sde

    from repro.released import song_unets

    settings = {"image_size": 8, "channels": 3, "width": 8, "channel_mult": [1, 1], "num_blocks": 1}
    settings |= {"attention_at": [8], "embedding": "fourier", "embedding_mult": 2, "encoder": "residual"}
    network = registry.build("networks", "SongUNet", **settings, resample_filter=[1, 3, 3, 1])
    ours, found = network.state_dict(), {}
    for entry in song_unets._table(network):
        shapes = [tuple(ours[name].shape) for name in entry.ours]
        if len(entry.foreign) == 6:
            shapes = [(8, 8), (8,)] * 3
        found |= {name: torch.zeros(shape) for name, shape in zip(entry.foreign, shapes, strict=True)}
    return flax_of_score_sde(found)


def plain_unet(tree, z, log_snr, labels, heads):
    """The U-Net of diffusion_distillation with one block a resolution, written out in its own layout."""

    def conv(layer, h, stride=1):
        if stride == 2:
            h = F.pad(h, (0, 1, 0, 1))
        kernel = layer["kernel"].double().permute(3, 2, 0, 1)
        return F.conv2d(h, kernel, layer["bias"].double(), stride, padding=1 if stride == 1 else 0)

    def dense(layer, h):
        return h @ layer["kernel"].double() + layer["bias"].double()

    def norm(layer, h):
        return F.group_norm(h, 32, layer["scale"].double(), layer["bias"].double(), 1e-6)

    def block(layer, h, change=lambda h: h):
        skip, h = change(h), change(F.silu(norm(layer["norm1"], h)))
        h = conv(layer["conv1"], h)
        scale, shift = dense(layer["temb_proj"], F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = conv(layer["conv2"], F.silu(norm(layer["norm2"], h) * (1 + scale) + shift))
        if "nin_shortcut" in layer:
            skip = dense(layer["nin_shortcut"], skip.movedim(1, -1)).movedim(-1, 1)
        return skip + h

    def attention(layer, x):
        h = norm(layer["norm"], x).flatten(2).mT
        q, k, v = (
            torch.einsum("bnc,chd->bnhd", h, layer[part]["kernel"].double()) + layer[part]["bias"].double()
            for part in "qkv"
        )
        weights = torch.einsum("bnhd,bmhd->bhnm", q, k).div(math.sqrt(q.shape[-1])).softmax(-1)
        mixed = torch.einsum("bhnm,bmhd->bnhd", weights, v)
        h = torch.einsum("bnhd,hdc->bnc", mixed, layer["proj_out"]["kernel"].double())
        return x + (h + layer["proj_out"]["bias"].double()).mT.reshape(x.shape)

    angle = 1000 * torch.exp(-log_snr / 2).arctan() / (math.pi / 2)
    frequencies = 10_000 ** (-torch.arange(16, dtype=torch.float64) / 15)
    waves = angle[:, None] * frequencies
    embedding = dense(tree["dense0"], torch.cat([waves.sin(), waves.cos()], dim=1))
    embedding = dense(tree["dense1"], F.silu(embedding))
    if "class_emb" in tree:
        embedding = embedding + dense(tree["class_emb"], F.one_hot(labels, 4).double())
    last = max(int(name[5]) for name in tree if name.startswith("down_"))
    skips = [conv(tree["conv_in"], z)]
    for level in range(last + 1):
        h = block(tree[f"down_{level}.block_0"], skips[-1])
        skips.append(attention(tree[f"down_{level}.attn_0"], h) if level == last else h)
        if level < last:
            down = tree[f"down_{level}.downsample"]
            pooled = block(down, skips[-1], lambda h: F.avg_pool2d(h, 2)) if "conv1" in down else None
            skips.append(conv(down, skips[-1], 2) if pooled is None else pooled)
    h = block(tree["mid.block_2"], attention(tree["mid.attn_1"], block(tree["mid.block_1"], skips[-1])))
    for level in range(last, -1, -1):
        for number in range(2):
            h = block(tree[f"up_{level}.block_{number}"], torch.cat([h, skips.pop()], dim=1))
            h = attention(tree[f"up_{level}.attn_{number}"], h) if level == last else h
        if level:
            up = tree[f"up_{level}.upsample"]
            nearest = lambda h: F.interpolate(h, scale_factor=2)  # noqa: E731
            h = block(up, h, nearest) if "conv1" in up else conv(up, nearest(h))
    return conv(tree["conv_out"], F.silu(norm(tree["norm_out"], h)))


def plain_x_0(mean_type, output, z, log_snr):
    alpha, sigma = (sign.sigmoid().sqrt()[:, None, None, None] for sign in (log_snr, -log_snr))
    if mean_type == "x":
        return output
    if mean_type == "v":
        return alpha * z - sigma * output
    image, noise = output.chunk(2, dim=1) if mean_type == "both" else (0.0, output)
    from_noise = (z - sigma * noise) / alpha
    return sigma**2 * image + alpha**2 * from_noise if mean_type == "both" else from_noise


CASES = [("x", 1, True, 2, (1, 2)), ("v", 4, False, 1, (2, 1)), ("both", 1, True, 4, (1, 1)), ("eps", 1, True, 1, (1,))]


@pytest.mark.parametrize(("mean_type", "classes", "resample_block", "heads", "mults"), CASES)
def test_progressive_distillation(tmp_path, mean_type, classes, resample_block, heads, mults):
    given = {"outputs": 6 if mean_type == "both" else 3, "classes": classes, "mults": mults}
    given |= {"resample_block": resample_block, "heads": heads}
    options = {"image_size": 4 * 2 ** (len(mults) - 1)} | (
        {} if mean_type in ("both", "x") else {"mean_type": mean_type}
    )
    imported = import_file(distilled_file(tmp_path / "cifar_4", **given), **options)
    assert imported.format == "diffusion_distillation"
    assert imported.file.assumed == ({"mean_type": "x"} if mean_type == "x" else {})
    assert (imported.model.sampler.steps, imported.model.sampler.clip) == (4, True)
    denoiser, tree = imported.model.denoiser.double(), distilled_parameters(**given)
    size = options["image_size"]
    z = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([3, 0, 2]) if classes > 1 else None
    log_snr = torch.tensor([-19.0, 0.3, 12.0], dtype=torch.float64)
    t = denoiser.kernel.time_of_ratio((-log_snr / 2).exp())
    expected = plain_x_0(mean_type, plain_unet(tree, z, log_snr, labels, heads), z, log_snr)
    assert error(denoiser.denoise(z, t, labels), expected) < 1e-6

    def log_snr_at(u):
        first, last = math.atan(math.exp(-10)), math.atan(math.exp(10))
        return torch.full((3,), -2 * math.log(math.tan(first + u * (last - first))), dtype=torch.float64)

    x = z
    for step in (3, 2, 1):
        level, below = log_snr_at(step / 3), log_snr_at((step - 1) / 3)
        image = plain_x_0(mean_type, plain_unet(tree, x, level, labels, heads), x, level).clamp(-1, 1)
        noise = (x - level.sigmoid().sqrt()[0] * image) / (-level).sigmoid().sqrt()[0]
        x = below.sigmoid().sqrt()[0] * image + (-below).sigmoid().sqrt()[0] * noise if step > 1 else image
    assert error(ddim(3).sample(denoiser, z, labels), x) < 1e-5


def test_the_published_network_of_progressive_distillation_has_60004099_parameters():
    from repro.released.diffusion_distillation import layout

    record = layout.settings(
        {
            "image_size": 32,
            "ch": 256,
            "emb_ch": 1024,
            "ch_mult": [1, 1, 1],
            "num_res_blocks": 3,
            "attn_resolutions": [8, 16],
        }
    )
    with torch.device("meta"):
        network = registry.build("networks", record["name"], **record["args"])
    assert sum(parameter.numel() for parameter in network.parameters()) == 60_004_099


def test_originals_do_not_say_their_steps(tmp_path):
    imported = import_file(distilled_file(tmp_path / "cifar_original", steps=None), image_size=8)
    assert imported.file.assumed == {"mean_type": "x", "steps": 1024}
    with pytest.raises(UserError, match=r"mean_type is both; .* has 3 outputs"):
        import_file(tmp_path / "cifar_original", image_size=8, mean_type="both")


def packed(code, *parts):
    return msgpack.packb({"a": msgpack.ExtType(code, msgpack.packb(parts))})


def test_flax_containers_hold_what_flax_writes(tmp_path):
    path = tmp_path / "checkpoint"
    chunked = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}}
    chunked["chunks"] = {"0": np.arange(4, dtype=np.float32), "1": np.arange(4, 6, dtype=np.float32)}
    tree = {"a": chunked, "b": np.float16([[1.5]]), "c": {"0": "text", "1": None}, "d": np.zeros((0, 2), np.int32)}
    path.write_bytes(flax_bytes(tree))
    found = read_flax(path)
    assert found["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (found["b"].dtype, found["b"].tolist()) == (torch.float16, [[1.5]])
    assert found["c"] == {"0": "text", "1": None}
    assert found["d"].shape == (0, 2)
    path.write_bytes(packed(1, (2,), "bfloat16", b"\x80\x3f\x00\x40"))
    assert read_flax(path)["a"].tolist() == [1.0, 2.0]
    path.write_bytes(packed(3, (), "int32", b"\x07\0\0\0"))
    assert int(read_flax(path)["a"]) == 7


HOSTILE = {
    "another size": packed(1, (1 << 40,), "float32", bytes(8)),
    "negative": packed(1, (-1, -2), "float32", bytes(8)),
    "objects": packed(1, (1,), "object", bytes(8)),
    "unknown extension": packed(9, 1),
    "long list": b"\x81\xa1a\xdd\xff\xff\xff\xff",
    "long text": b"\x81\xa1a\xdb\xff\xff\xff\xff",
    "deep": b"\x81\xa1a" * 100_000 + b"\xc0",
    "deep enough": b"\x81\xa1a" * 500 + b"\xc0",
    "nested lists": b"\x81\xa1a" + b"\xdc\x00\x40" * 5000,
    "chunks of text": msgpack.packb({"__msgpack_chunked_array__": True, "shape": {"0": 1}, "chunks": {"0": "a"}}),
    "two objects": msgpack.packb({"a": 1}) * 2,
    "keys of numbers": msgpack.packb({1: 2}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_flax_files_are_one_line(tmp_path, name):
    path = tmp_path / "checkpoint_1"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(UserError, match="a msgpack file: damaged or cut off") as caught:
        import_file(path)
    assert "\n" not in str(caught.value)
