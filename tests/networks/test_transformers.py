"""U-ViT and DiT: recorded answers of the public code, published sizes, and what the transformers promise."""

import math

import pytest
import recorded_transformers as recorded
import torch
from torch.nn import functional as F

from repro import registry
from repro.errors import UserError
from repro.networks.dit import DiT, guided_output
from repro.networks.layers.stages import Stages
from repro.networks.layers.tokens import Attention, PatchEmbedding, sincos_positions, unpatch
from repro.networks.uvit import UViT
from repro.released.dit import layout as dit
from repro.released.multistage import transformer_layout as multistage_transformers
from repro.released.uvit import layout as uvit
from repro.testing import networks as laws

LAYOUTS = {"uvit": uvit, "dit": dit, "multistage_transformers": multistage_transformers}
CASES = recorded.cases()
DECODERS = [name for name in CASES if f"{name}.rows" in recorded.outputs()]
LATENT = {"img_size": 32, "patch_size": 2, "in_chans": 4, "num_classes": 1001}
SMALL = {"image_size": 8, "channels": 2, "width": 16, "depth": 2, "heads": 2}


def build(name):
    """Our network of a recorded case, with its weights, in double precision, and the case's inputs."""
    case = CASES[name]
    layout = LAYOUTS[case["layout"]]
    settings = layout.settings(case["record"])
    network = registry.build("networks", settings["name"], **settings["args"]).double().eval()
    network.load_state_dict(layout.state_dict(recorded.foreign(case), network))
    return network, recorded.inputs(case)


def shaken(network, seed=0):
    """The network with no weight left at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def assert_equal(given, expected):
    assert given.shape == expected.shape
    torch.testing.assert_close(given, expected, rtol=0, atol=1e-11 * expected.abs().max().item())


@pytest.mark.parametrize("name", CASES)
def test_answers_as_recorded(name):
    network, (x, level, labels) = build(name)
    stage = {"stage": int(network.stage_of(level[:1]))} if name in DECODERS else {}
    answer = getattr(network, "full", network)
    with torch.no_grad():
        assert_equal(answer(x, level, labels, **stage), recorded.outputs()[name])


@pytest.mark.parametrize("name", DECODERS)
def test_each_image_goes_through_the_decoder_of_its_noise_level(name):
    network, inputs = build(name)
    with torch.no_grad():
        assert_equal(network(*inputs), recorded.outputs()[f"{name}.rows"])


def test_null_class_and_guidance_as_recorded():
    network, (x, level, labels) = build("dit")
    with torch.no_grad():
        assert_equal(network.full(x, level), recorded.outputs()["dit.null"])
        assert_equal(guided_output(network, x, level, labels, 4.0), recorded.outputs()["dit.guided"])


def test_guidance_of_strength_one_and_zero_is_none():
    network, (x, level, labels) = build("dit")
    with torch.no_grad():
        labelled, null = network.full(x, level, labels), network.full(x, level)
        assert_equal(guided_output(network, x, level, labels, 1.0)[:4], labelled)
        assert_equal(guided_output(network, x, level, labels, 0.0)[4:], null)


@pytest.mark.parametrize("name", [name for name in CASES if CASES[name]["layout"] == "multistage_transformers"])
def test_order_of_the_averaged_tensors(name):
    case = CASES[name]
    network, _ = build(name)
    assert multistage_transformers.shadow_names(network) == case["trained"]
    foreign = {f"module.{key}": value for key, value in recorded.foreign(case).items()}
    averaged = [2 * foreign[f"module.{key}"] for key in case["trained"]]
    merged = multistage_transformers.with_shadow(foreign, averaged, network)
    state = multistage_transformers.state_dict(merged, network)
    for key, value in multistage_transformers.state_dict(foreign, network).items():
        assert torch.equal(state[key], value if key == "position" and isinstance(network, DiT) else 2 * value), key
    with pytest.raises(UserError, match=f"{len(averaged) - 1} averaged tensors"):
        multistage_transformers.with_shadow(foreign, averaged[1:], network)


@pytest.mark.parametrize("name", ["uvit", "dit", "multistage_uvit_three"])
def test_files_that_do_not_fit_are_refused(name):
    case, layout = CASES[name], LAYOUTS[CASES[name]["layout"]]
    network, _ = build(name)
    foreign = recorded.foreign(case)
    position = foreign.pop("pos_embed")
    with pytest.raises(UserError, match="first missing 'pos_embed'"):
        layout.state_dict(foreign, network)
    with pytest.raises(UserError, match="first unexpected 'stray'"):
        layout.state_dict(foreign | {"pos_embed": position, "stray": position}, network)
    with pytest.raises(UserError, match="'pos_embed' has shape"):
        layout.state_dict(foreign | {"pos_embed": position[:, 1:]}, network)


def test_last_convolutions_that_differ_are_refused():
    network, _ = build("multistage_uvit_three")
    foreign = recorded.foreign(CASES["multistage_uvit_three"])
    foreign["final_layer.2.bias"] = foreign["final_layer.2.bias"] + 1
    with pytest.raises(UserError, match=r"final_layer\.2\.bias"):
        multistage_transformers.state_dict(foreign, network)


@pytest.mark.parametrize(
    ("layout", "record", "message"),
    [
        (uvit, {"embed_dims": 8}, "did you mean 'embed_dim'"),
        (uvit, {"norm_layer": "BatchNorm"}, "norm_layer of U-ViT 'BatchNorm'"),
        (dit, {"hidden": 8}, "did you mean 'hidden_size'"),
        (multistage_transformers, {"model": {"name": "UVIT"}}, "did you mean 'UViT'"),
        (multistage_transformers, {"model": {"name": "DiT"}}, "lacks 'input_size'"),
    ],
)
def test_records_that_are_not_understood_are_refused(layout, record, message):
    with pytest.raises(UserError, match=message):
        layout.settings(record)


@pytest.mark.parametrize(
    ("stated", "norm", "eps"),
    [
        ("LayerNorm", "layer", 1e-5),
        ("<class 'torch.nn.modules.normalization.LayerNorm'>", "layer", 1e-5),
        ("functools.partial(LayerNorm, eps=1e-06)", "layer", 1e-6),
        ("RMSNorm", "rms", None),
    ],
)
def test_norm_of_a_uvit_record(stated, norm, eps):
    args = uvit.settings({"norm_layer": stated})["args"]
    assert (args["norm"], args["norm_eps"]) == (norm, eps)


def count(record, layout):
    settings = layout.settings(record)
    with torch.device("meta"):
        network = registry.build("networks", settings["name"], **settings["args"])
    return sum(p.numel() for p in network.parameters()) + sum(b.numel() for b in network.buffers())


@pytest.mark.parametrize(
    ("record", "millions"),
    [
        ({"img_size": 32, "patch_size": 2, "embed_dim": 512, "num_heads": 8}, 44),
        ({"img_size": 64, "patch_size": 4, "embed_dim": 512, "num_heads": 8}, 44),
        ({"img_size": 64, "patch_size": 4, "embed_dim": 768, "depth": 16, "num_classes": 1000}, 131),
        (LATENT | {"embed_dim": 1024, "depth": 20, "num_heads": 16}, 287),
        (LATENT | {"embed_dim": 1152, "depth": 28, "num_heads": 16}, 501),
    ],
    ids=["S/2 CIFAR-10", "S/4 CelebA", "M/4 ImageNet-64", "L/2 ImageNet-256", "H/2 ImageNet-256"],
)  # fmt: skip
def test_published_sizes_of_uvit(record, millions):
    assert round(count(record, uvit) / 1e6) == millions


@pytest.mark.parametrize(
    ("width", "depth", "heads", "millions"),
    [(384, 12, 6, 33), (768, 12, 12, 130), (1024, 24, 16, 458), (1152, 28, 16, 675)],
    ids=["S/2", "B/2", "L/2", "XL/2"],
)
def test_published_sizes_of_dit(width, depth, heads, millions):
    record = {"hidden_size": width, "depth": depth, "num_heads": heads}
    assert abs(count(record, dit) / 1e6 - millions) < 0.6


def test_defaults_are_uvit_s2_and_dit_xl2():
    with torch.device("meta"):
        assert sum(p.numel() for p in UViT(32, 3).parameters()) == 44_255_328
        whole = DiT(32, 4, 1000, null_class=True, learn_sigma=True)
    assert sum(p.numel() for p in whole.parameters()) + whole.position.numel() == 675_129_632


def test_fresh_dit_answers_zero_and_keeps_its_variance_apart():
    network = DiT(8, 3, 5, width=16, depth=2, heads=2, learn_sigma=True)
    x, level, labels = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 700.0]), torch.tensor([0, 4])
    assert not network(x, level, labels).any()
    shaken(network)
    full = network.full(x, level, labels)
    assert full.shape == (2, 6, 8, 8)
    assert torch.equal(network(x, level, labels), full[:, :3])


@pytest.mark.parametrize(
    "options",
    [
        {"num_classes": 3, "null_class": True, "decoder_widths": [24, 16, 8], "boundaries": [0.4, 500.0]},
        {"num_classes": 3, "label_embedding": "mlp", "time_mlp": True, "qkv_bias": True, "norm": "rms"},
        {"long_skips": False, "final_conv": False, "patch_size": 1, "mlp_ratio": 2.5, "recompute": True},
    ],
    ids=["multistage", "labels by mlp", "plain"],
)
def test_options_of_uvit_obey_the_laws(options):
    laws.check_network(lambda: registry.build("networks", "UViT", **SMALL | options))


@pytest.mark.parametrize("cls", [UViT, DiT])
def test_missing_label_is_the_null_class_and_dropout_uses_it(cls):
    network = shaken(cls(**SMALL, num_classes=3, label_dropout=1.0))
    x, level = torch.randn(4, 2, 8, 8), torch.full((4,), 300.0)
    labels = torch.tensor([0, 1, 2, 0])
    null = torch.full((4,), 3)
    with torch.no_grad():
        assert torch.equal(network.eval()(x, level), network(x, level, null))
        assert not torch.allclose(network(x, level, labels), network(x, level, null))
        assert torch.equal(network.train()(x, level, labels), network(x, level, null))


@pytest.mark.parametrize("cls", [UViT, DiT])
def test_recomputing_changes_nothing(cls):
    results = []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = shaken(cls(**SMALL, recompute=recompute)).train()
        x, level = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(1)), torch.tensor([1.0, 400.0])
        output = network(x, level)
        output.square().mean().backward()
        results.append((output.detach(), [p.grad for p in network.parameters()]))
    (plain, plain_grads), (again, again_grads) = results
    torch.testing.assert_close(again, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(again_grads, plain_grads, rtol=1e-5, atol=1e-6)


def test_attention_equals_the_written_out_formula():
    layer = Attention(12, heads=3).double()
    tokens = torch.randn(2, 5, 12, dtype=torch.float64)
    joint = layer.qkv(tokens).reshape(2, 5, 3, 3, 4)
    heads = []
    for head in range(3):
        query, key, value = (joint[:, :, part, head] for part in range(3))
        weights = torch.softmax(query @ key.transpose(1, 2) / math.sqrt(4), dim=-1)
        heads.append(weights @ value)
    expected = layer.projection(torch.cat(heads, dim=-1))
    torch.testing.assert_close(layer(tokens), expected, rtol=1e-12, atol=1e-12)


def test_patches_are_dot_products_and_unpatch_puts_them_back():
    layer = PatchEmbedding(2, 3, 5)
    images = torch.randn(2, 3, 6, 6)
    tokens = layer(images)
    patch = images[1, :, 2:4, 4:6]
    expected = (layer.projection.weight * patch).sum((1, 2, 3)) + layer.projection.bias
    torch.testing.assert_close(tokens[1, 1 * 3 + 2], expected)
    cut = images.reshape(2, 3, 3, 2, 3, 2).permute(0, 2, 4, 3, 5, 1).reshape(2, 9, 12)
    assert torch.equal(unpatch(cut, 2, (6, 6)), images)


def test_positions_written_out():
    table = sincos_positions((3, 3), 8)
    for row in range(3):
        for column in range(3):
            expected = [
                wave(coordinate / 10000 ** (k / 2))
                for coordinate in (column, row)
                for wave in (math.sin, math.cos)
                for k in range(2)
            ]
            torch.testing.assert_close(table[3 * row + column], torch.tensor(expected))


def test_stages_cut_the_noise_levels_open_below_and_closed_above():
    stages = Stages(2, [10.0, 20.0], [0, 1, 0])
    assert stages.of(torch.tensor([0.0, 10.0, 10.1, 20.0, 20.1])).tolist() == [0, 0, 1, 1, 0]


def test_long_skips_join_mirrored_blocks():
    """With every block but the joins switched off, the decoder sees the encoder's outputs in reverse order."""
    network = UViT(4, 1, width=8, depth=4, heads=2, final_conv=False)
    with torch.no_grad():
        for block in [*network.encoder, network.middle, *network.decoders[0].blocks]:
            for layer in (block.attention.projection, block.mlp.outer):
                layer.weight.zero_()
        network.encoder[0].mlp.outer.bias.fill_(1.0)
        network.encoder[1].mlp.outer.bias.fill_(10.0)
        for index, block in enumerate(network.decoders[0].blocks):
            block.merge.weight.copy_(torch.cat([torch.zeros(8, 8), torch.eye(8)], dim=1))
            block.merge.bias.fill_(100.0 * (index + 1))
    seen = []
    for block in network.decoders[0].blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    x, level = torch.randn(1, 1, 4, 4), torch.tensor([5.0])
    network(x, level)
    start = network._encode(x, level, None)[0] - 1
    torch.testing.assert_close(seen[0], start + 11 + 100)
    torch.testing.assert_close(seen[1], start + 1 + 200)


@pytest.mark.parametrize(
    ("cls", "options", "message"),
    [
        (UViT, {"patch_size": 3}, "patch_size 3 does not divide image_size 8; give one of 1, 2, 4, 8"),
        (DiT, {"patch_size": 3}, "patch_size 3 does not divide image_size 8"),
        (UViT, {"heads": 3}, "width 16 is not a multiple of heads 3"),
        (DiT, {"width": 18}, "multiple of 4"),
        (UViT, {"norm": "batch"}, "unknown norm of UViT 'batch'"),
        (DiT, {"gelu": "tan"}, "did you mean 'tanh'"),
        (DiT, {"time_classes": 1}, "time_classes is 1"),
        (UViT, {"num_classes": 3, "label_dropout": 1.5}, "label_dropout is 1.5"),
        (UViT, {"decoder_widths": [16, 8]}, "2 intervals of noise levels need 1 ascending boundaries"),
        (UViT, {"decoder_widths": [16, 7], "boundaries": [5.0]}, "width 7 is not a multiple of heads 2"),
        (UViT, {"decoder_widths": [16, 8], "boundaries": [5.0], "long_skips": False}, "need long_skips"),
        (UViT, {"decoder_widths": [16, 8], "boundaries": [5.0], "interval_decoders": [0, 0]}, "use each of the dec"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused(cls, options, message):
    with pytest.raises(UserError, match=message):
        cls(**SMALL | options)


def test_guidance_needs_a_null_class():
    network = DiT(**SMALL, num_classes=3)
    with pytest.raises(UserError, match="null_class"):
        guided_output(network, torch.zeros(1, 2, 8, 8), torch.zeros(1), torch.zeros(1, dtype=torch.int64), 2.0)


def test_time_as_class_is_a_staircase():
    network = shaken(DiT(**SMALL, time_classes=21)).eval()
    levels = torch.tensor([0.0, 49.9, 50.0, 998.9, 999.0])
    x = torch.randn(1, 2, 8, 8).expand(5, -1, -1, -1)
    with torch.no_grad():
        out = network(x, levels)
    torch.testing.assert_close(out[0], out[1])
    assert not torch.allclose(out[1], out[2])
    assert not torch.allclose(out[3], out[4])


def test_rms_norm_is_used():
    network = UViT(**SMALL, norm="rms", norm_eps=1e-3)
    tokens = torch.randn(3, 16)
    expected = tokens / (tokens.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    torch.testing.assert_close(network.middle.mlp_norm(tokens), expected)
    torch.testing.assert_close(UViT(**SMALL).middle.mlp_norm(tokens), F.layer_norm(tokens, (16,)))
