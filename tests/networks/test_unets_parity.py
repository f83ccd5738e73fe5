"""The U-Nets give the recorded answers of the public implementations, through the layouts that read their files."""

import importlib

import pytest
import recorded_unets
import torch
from torch import nn

from repro import networks
from repro.released.multistage import layout as multistage
from repro.released.score_sde import layout as score_sde

CASES = recorded_unets.cases()
OUTPUTS = recorded_unets.outputs()


def layout_of(case):
    return importlib.import_module(f"repro.released.{case['layout']}.layout")


def build(case):
    settings = layout_of(case).settings(case["record"])
    return getattr(networks, settings["name"])(**settings["args"]).eval()


def load(case):
    network = build(case)
    network.load_state_dict(layout_of(case).state_dict(recorded_unets.foreign(case), network))
    return network


def error(network, case, expected):
    dtype = next(network.parameters()).dtype
    inputs = recorded_unets.inputs(case)
    with torch.no_grad():
        output = network(
            **{k: v.to(dtype) if v is not None and v.is_floating_point() else v for k, v in inputs.items()}
        )
    return ((output.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("name", CASES)
def test_output_in_both_precisions(name):
    network = load(CASES[name])
    single = error(network, CASES[name], OUTPUTS[name])
    assert error(network.double(), CASES[name], OUTPUTS[name]) < 1e-10
    # How much float32 loses depends on the processor (the phase of an embedded time near 1,000 is off by 6e-5), so
    # it is measured against weights of half precision.
    assert 10 * single < error(network.half().double(), CASES[name], OUTPUTS[name])


@pytest.mark.parametrize("name", CASES)
def test_wrong_epsilon_is_noticed(name):
    network = load(CASES[name]).double()
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.eps = 1e-5 if module.eps == 1e-6 else 1e-6
    assert error(network, CASES[name], OUTPUTS[name]) > 1e-8


@pytest.mark.parametrize("name", ["edm_skip_paths", "edm_adm_conditional", "score_sde_ncsnpp_ve", "multistage_ncsnpp"])
def test_channels_last(name):
    network = load(CASES[name]).double().to(memory_format=torch.channels_last)
    assert error(network, CASES[name], OUTPUTS[name]) < 1e-10


@pytest.mark.parametrize("name", ["edm_skip_paths", "edm_adm_conditional", "score_sde_ncsnpp_ve", "consistency_conv"])
def test_traced_as_one_graph(name):
    network = torch.compile(load(CASES[name]).double(), fullgraph=True, backend="eager")
    assert error(network, CASES[name], OUTPUTS[name]) < 1e-10


@pytest.mark.parametrize("name", [name for name in CASES if "frozen" in CASES[name]])
def test_averaged_tensors_by_position(name):
    case, network = CASES[name], build(CASES[name])
    layout = multistage if case["layout"] == "multistage" else score_sde
    raw = {key: torch.full(shape, torch.nan) for key, shape in case["shapes"].items()}
    averaged = recorded_unets.foreign(case)
    raw |= {key: averaged[key] for key in case["frozen"]}
    shadow = [averaged[key] for key in case["shapes"] if key not in case["frozen"]]
    network.load_state_dict(layout.state_dict(layout.with_shadow(raw, shadow, network), network))
    assert error(network.double(), case, OUTPUTS[name]) < 1e-10
