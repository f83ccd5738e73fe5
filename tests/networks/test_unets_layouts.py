"""Layouts refuse what does not fit, in one line, and keep foreign orders of heads and parameters apart."""

import math

import pytest
import recorded_unets
import torch

from repro import networks
from repro.errors import UserError
from repro.released.consistency import layout as consistency
from repro.released.edm import layout as edm
from repro.released.multistage import layout as multistage
from repro.released.score_sde import layout as score_sde

CASES = recorded_unets.cases()
SCORE_SDE = CASES["score_sde_ncsnpp_ve"]
STAGES = CASES["multistage_edm"]


def build(settings):
    return getattr(networks, settings["name"])(**settings["args"])


def recorded(name, layout):
    case = CASES[name]
    return recorded_unets.foreign(case), build(layout.settings(case["record"]))


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("edm_ncsnpp", edm),
        ("score_sde_ddpm", score_sde),
        ("multistage_edm", multistage),
        ("multistage_ncsnpp", multistage),
        ("consistency_conv", consistency),
    ],
)
def test_every_name_and_shape_counts(name, layout):
    foreign, network = recorded(name, layout)
    assert layout.state_dict(foreign, network).keys() == network.state_dict().keys()
    last = [*foreign][-1]
    for changed, message in (
        ({key: value for key, value in foreign.items() if key != last}, "1 tensors missing, 0 unexpected"),
        (foreign | {"stranger.weight": torch.zeros(1)}, "0 tensors missing, 1 unexpected.*stranger.weight"),
        (foreign | {last: torch.zeros(7)}, r"has shape \(7,\)"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            layout.state_dict(changed, network)
        assert "\n" not in str(caught.value)


def test_tensors_are_copies_in_our_type():
    foreign, network = recorded("edm_ncsnpp", edm)
    foreign = {name: tensor.half() for name, tensor in foreign.items()}
    ours = edm.state_dict(foreign, network)
    assert {tensor.dtype for tensor in ours.values()} == {torch.float32}
    ours["encoder.stem.bias"].zero_()
    assert foreign["model.enc.8x8_conv.bias"].any()


def test_constants_of_edm_are_left_out():
    foreign, network = recorded("edm_iddpm", edm)
    constants = {"model.enc.4x4_down.conv0.resample_filter": torch.ones(1, 1, 2, 2) / 4, "u": torch.zeros(1001)}
    edm.state_dict(foreign | constants, network)


def test_inner_network_of_edm_is_read_too():
    foreign, network = recorded("edm_ddpmpp_conditional", edm)
    inner = {name.removeprefix("model."): tensor for name, tensor in foreign.items()}
    for name, tensor in edm.state_dict(inner, network).items():
        assert torch.equal(tensor, edm.state_dict(foreign, network)[name])


def test_edm_block_is_adm_block_by_default():
    block = edm.block({"in_channels": 8, "out_channels": 128, "emb_channels": 4, "attention": True})
    assert block.attention.heads == 2
    assert block.norm1.eps == 1e-5
    assert block.affine.out_features == 256
    plain = edm.block({"in_channels": 8, "out_channels": 8, "emb_channels": 4, "down": True})
    assert plain.attention is None
    assert plain.shortcut is None
    assert plain(torch.zeros(1, 8, 4, 4), torch.zeros(1, 4)).shape == (1, 8, 2, 2)
    with pytest.raises(UserError, match=r"first missing 'norm0.bias'"):
        edm.block_state_dict({"norm0.weight": torch.zeros(8)}, plain)


@pytest.mark.parametrize(("wrapper", "channels"), [("EDMPrecond", 3), ("training.networks.iDDPMPrecond", 6)])
def test_output_channels_follow_the_wrapper(wrapper, channels):
    record = {"img_resolution": 8, "img_channels": 3, "model_type": "SongUNet", "class_name": wrapper}
    assert edm.settings(record)["args"]["out_channels"] == channels


def test_default_network_of_the_wrappers():
    record = {"img_resolution": 64, "img_channels": 3}
    assert edm.settings(record)["name"] == "ADM"
    song = edm.settings(record | {"class_name": "VPPrecond"})
    assert song["name"] == "SongUNet"
    assert song["args"]["channel_mult"] == [1, 2, 2, 2]


def test_intervals_of_the_two_forks():
    edm_form = multistage.settings(STAGES["record"])["args"]
    assert edm_form["boundaries"] == pytest.approx([0.0, math.log(10) / 4])
    assert edm_form["interval_decoders"] is None
    deep = multistage.settings(CASES["multistage_ncsnpp"]["record"])["args"]
    assert deep["boundaries"] == pytest.approx([442.0, 630.8])
    shared = multistage.settings(CASES["multistage_ncsnpp_intervals"]["record"])["args"]
    assert shared["boundaries"] == pytest.approx([200.0, 800.0])
    assert shared["interval_decoders"] == [0, 1, 0]


def test_published_intervals_are_the_defaults():
    record = {"img_resolution": 32, "img_channels": 3, "model_type": "MultistageUNet"}
    args = multistage.settings(record)["args"]
    with torch.device("meta"):
        default = networks.MultistageUNet(32, 3)
    assert args["boundaries"] == pytest.approx(default.routes.boundaries, abs=1e-5)
    assert args["decoder_widths"] == [192, 128, 16]


@pytest.mark.parametrize(("name", "groups"), [("SongUNet", 16), ("DhariwalUNet", 16)])
def test_fork_of_edm_has_fewer_groups(name, groups):
    record = {"img_resolution": 8, "img_channels": 3, "model_type": name}
    assert multistage.settings(record)["args"]["max_groups"] == groups
    assert "max_groups" not in edm.settings(record)["args"]


def changed(case, part, **values):
    return case["record"] | {part: case["record"][part] | values}


@pytest.mark.parametrize(
    ("layout", "record", "message"),
    [
        (edm, {"img_channels": 3}, r"no 'img_resolution'"),
        (
            edm,
            {"img_resolution": 8, "img_channels": 3, "model_type": "SongUnet"},
            r"'SongUnet'; did you mean 'SongUNet'",
        ),
        (edm, {"img_resolution": 8, "img_channels": 3, "num_block": 1}, r"'num_block'; did you mean 'num_blocks'"),
        (score_sde, {}, r"unknown score_sde network ''"),
        (score_sde, changed(SCORE_SDE, "model", name="ncsn"), r"'ncsn'; did you mean 'ncsnpp'"),
        (score_sde, changed(SCORE_SDE, "model", nonlinearity="gelu"), r"unknown nonlinearity of score_sde 'gelu'"),
        (score_sde, {"model": SCORE_SDE["record"]["model"], "data": {}}, r"no entry 'image_size'"),
        (multistage, {"model": {"name": "ncsnpp_multistage"}, "data": {}}, r"no entry"),
        (
            multistage,
            changed(CASES["multistage_ncsnpp"], "model", stage_interval=[[[0, 0.4]], [[0.5, 0.6]], [[0.6, 1]]]),
            r"no stage covers noise levels from 400 to 500",
        ),
        (consistency, {"image_size": 8}, r"no 'in_channels'"),
        (consistency, CASES["consistency_conv"]["record"] | {"dims": 3}, r"dims=3"),
        (consistency, CASES["consistency_conv"]["record"] | {"num_head": 3}, r"'num_head'; did you mean 'num_heads'"),
    ],
)
def test_records_that_do_not_fit(layout, record, message):
    with pytest.raises(UserError, match=message) as caught:
        layout.settings(record)
    assert "\n" not in str(caught.value)


def test_list_of_averages_of_another_length():
    foreign, network = recorded("score_sde_ddpm", score_sde)
    with pytest.raises(UserError, match=r"holds 3 averaged tensors, the network has 134"):
        score_sde.with_shadow(foreign, [torch.zeros(1)] * 3, network)


def test_frozen_frequencies_are_not_averaged():
    foreign, network = recorded("score_sde_ncsnpp_ve", score_sde)
    names = score_sde.shadow_names(network)
    assert "all_modules.0.W" not in names
    assert len(names) == len(foreign) - 1
