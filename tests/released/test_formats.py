"""Released files of every family, wrapped as their projects wrap them, become models that answer as recorded."""

from __future__ import annotations

import copy
import json
import math

import pytest
import torch
from containers import (
    CASES,
    OUTPUTS,
    UNETS,
    augment_labels,
    dit_checkpoint,
    edm_pickle,
    foreign,
    foreign_shapes,
    inputs,
    one_of_each,
    score_sde_checkpoint,
    state_dict_file,
)

import repro
from repro import registry
from repro.denoisers import GuidedDenoiser, UnderKernel
from repro.errors import UserError
from repro.kernels import EDM
from repro.records import record_of
from repro.released import openai_unets as consistency, song_unets as score_sde
from repro.released.base import ForeignFile
from repro.released.consistency.format import ConsistencyFormat
from repro.released.dit import layout as dit
from repro.released.dit.format import DiTFormat
from repro.released.importing import format_of, import_file
from repro.released.module_lists import output_path, parts_of, read_encoder
from repro.released.multistage import layout as multistage
from repro.released.multistage.format import MultistageFormat
from repro.released.transformers import dit_record, uvit_record
from repro.released.uvit import layout as uvit
from repro.released.uvit.format import UViTFormat
from repro.testing.formats import check_format

FORMATS = registry.names("checkpoints")


def error(ours, recorded):
    return ((ours.double() - recorded.double()).abs().max() / recorded.abs().max()).item()


def answer(module, name):
    """What the imported network answers to a case's inputs."""
    x, level, labels = inputs(name)
    network = copy.deepcopy(module.denoiser.network).double()
    with torch.no_grad():
        return getattr(network, "full", network)(x, level, labels)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return one_of_each(tmp_path_factory.mktemp("released"))


@pytest.mark.parametrize("name", FORMATS)
def test_laws(name, files):
    path, options = files[name]
    check_format(name, path, [other for key, (other, _) in files.items() if key != name], **options)


def test_every_format_has_a_file(files):
    assert set(files) == set(FORMATS)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_edm_pickles_of_every_protocol(tmp_path, protocol):
    imported = import_file(edm_pickle(tmp_path / "a.pkl", "edm_skip_paths", protocol=protocol))
    assert imported.format == "edm"
    assert imported.file.found == "VPPrecond of SongUNet, averaged weights"
    assert not imported.file.assumed
    x, level, _ = inputs("edm_skip_paths")
    assert error(imported.model.denoiser.network(x.float(), level.float()), OUTPUTS["edm_skip_paths"]) < 2e-5


EDM_CASES = [name for name in UNETS if name.startswith("edm_")]


@pytest.mark.parametrize("name", EDM_CASES)
def test_edm_networks_in_their_wrappers(tmp_path, name):
    module = import_file(edm_pickle(tmp_path / "a.pkl", name)).model
    x, level, labels = inputs(name)
    augmentation = augment_labels(name)
    more = (labels,) if augmentation is None else (labels, augmentation.float())
    sign = -1 if "VEPrecond" in CASES[name]["record"]["class_name"] else 1
    assert error(sign * module.denoiser.network(x.float(), level.float(), *more), OUTPUTS[name]) < 2e-5
    assert module.num_classes == CASES[name]["num_classes"]
    assert module.takes_no_labels == (CASES[name]["record"].get("label_dropout", 0) > 0)


def test_edm_training_states_hold_the_weights_of_the_last_step(tmp_path):
    imported = import_file(edm_pickle(tmp_path / "training-state-1.pt", "edm_ncsnpp", training_state=True))
    assert imported.file.found == "VEPrecond of SongUNet, weights of the last step"
    assert error(-answer(imported.model, "edm_ncsnpp"), OUTPUTS["edm_ncsnpp"]) < 2e-5


def scalings(wrapper, sigma):
    """c_skip, c_out, c_in and c_noise of EDM's wrappers, as its paper's table 1 has them."""
    if wrapper == "EDMPrecond":
        total = sigma**2 + 0.25
        return 0.25 / total, sigma * 0.5 / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4
    if wrapper == "VEPrecond":
        return 1, sigma, 1, (sigma / 2).log()
    rate, slope = 0.1, 19.9
    t = ((rate**2 + 2 * slope * (1 + sigma**2).log()).sqrt() - rate) / slope
    return 1, -sigma, 1 / (sigma**2 + 1).sqrt(), 999 * t


@pytest.mark.parametrize("wrapper", ["EDMPrecond", "VPPrecond", "VEPrecond"])
def test_the_class_in_an_edm_pickle_decides_what_its_network_means(tmp_path, wrapper):
    name = "edm_residual_box"
    average = import_file(edm_pickle(tmp_path / "a.pkl", name, wrapper)).model.denoiser
    x = inputs(name)[0]
    sigma = torch.tensor([0.03, 1.7, 60.0], dtype=torch.float64)
    skip, out, scale, level = (torch.as_tensor(c, dtype=torch.float64).expand(3) for c in scalings(wrapper, sigma))
    images = [c[:, None, None, None] for c in (skip, out, scale)]
    plain = import_file(edm_pickle(tmp_path / "b.pkl", name, "EDMPrecond")).model.denoiser.network
    expected = images[0] * x + images[1] * plain((images[2] * x).float(), level.float()).double()
    assert error(UnderKernel(average, EDM()).denoise(x, sigma), expected) < 1e-5


def test_iddpm_knows_the_levels_of_its_table(tmp_path):
    average = import_file(edm_pickle(tmp_path / "a.pkl", "edm_iddpm")).model.denoiser
    steps = torch.tensor([0.0, 400.0, 960.0], dtype=torch.float64)
    level = [math.sin(math.pi / 2 * (1000 - step) / 1000 / 1.008) ** 2 for step in steps.tolist()]
    above = [math.sin(math.pi / 2 * (999 - step) / 1000 / 1.008) ** 2 for step in steps.tolist()]
    beta = [min(1 - a / b, 0.999) for a, b in zip(above, level, strict=True)]
    t, apart = (steps + 1) / average.kernel.steps, 1 / average.kernel.steps
    assert average.parameterization.noise_level(t, t).tolist() == pytest.approx(steps.tolist())
    signal = average.kernel.alpha(t) ** 2
    before = torch.where(steps > 0, average.kernel.alpha((t - apart).clamp(apart)) ** 2, 1.0)
    assert (1 - signal / before).tolist() == pytest.approx(beta, rel=1e-9)
    x, sigma = inputs("edm_iddpm")[0], average.kernel.ratio(t)[:, None, None, None]
    shown = x * (sigma**2 + 1).rsqrt()
    expected = x - sigma * average.network(shown.float(), steps.float())[:, :3].double()
    assert error(UnderKernel(average, EDM()).denoise(x, sigma.flatten()), expected) < 1e-5


def variance(kernel, t):
    log_alpha = -0.25 * t**2 * 19.9 - 0.05 * t
    return {"VP": (1 - (2 * log_alpha).exp()).sqrt(), "SubVP": 1 - (2 * log_alpha).exp()}[kernel]


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kernel", ["VP", "SubVP"])
def test_score_sde_scores_under_the_kernel_that_was_named(tmp_path, kernel, zipped):
    name = "score_sde_ncsnpp_vp"
    path = score_sde_checkpoint(tmp_path / "checkpoint_8.pth", name, zipped)
    imported = import_file(path, kernel=kernel, image_size=8)
    assert imported.format == "score_sde"
    assert not imported.file.assumed
    assert type(imported.model.sampler).__name__ == {"VP": "DPMSolver", "SubVP": "RK45"}[kernel]
    x, level, _ = inputs(name)
    t = level / 999
    score = -OUTPUTS[name] / variance(kernel, t)[:, None, None, None]
    assert error(imported.model.denoiser.score(x, t), score) < 2e-5


def test_score_sde_discrete_steps(tmp_path):
    name = "score_sde_ddpm"
    imported = import_file(score_sde_checkpoint(tmp_path / "a.pth", name), kernel="DiscreteVP", image_size=8)
    assert imported.file.assumed == {"network": "ddpm"}
    x, step, _ = inputs(name)
    whole = step == step.round()
    betas = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    std = (1 - (1 - betas).cumprod(0)).sqrt()[step[whole].long()][:, None, None, None]
    score = imported.model.double().denoiser.score(x[whole], (step[whole] + 1) / 1000)
    assert error(score, -OUTPUTS[name][whole] / std) < 2e-5


def test_score_sde_variance_exploding_networks_see_images_from_0_to_1(tmp_path):
    name = "score_sde_ncsnpp_ve"
    imported = import_file(score_sde_checkpoint(tmp_path / "a.pth", name), image_size=8)
    assert imported.file.assumed == {"kernel": "VE", "centred": False}
    average = imported.model.denoiser
    assert (average.kernel.sigma_min, average.kernel.sigma_max) == pytest.approx((0.02, 100.0))
    x, sigma, _ = inputs(name)
    t = average.kernel.time_of_ratio(2 * sigma)
    assert error(2 * average.score(2 * x - 1, t), OUTPUTS[name]) < 2e-5


@pytest.mark.parametrize(
    "name", ["score_sde_ddpm", "score_sde_ddpmpp", "score_sde_ncsnpp_vp", "score_sde_fir_down_conv"]
)
def test_score_sde_networks_from_names_and_shapes(tmp_path, name):
    imported = import_file(score_sde_checkpoint(tmp_path / "a.pth", name), image_size=8)
    assert error(answer(imported.model, name), OUTPUTS[name]) < 2e-5
    last = [tensor for key, tensor in imported.raw_model().state_dict().items() if key.endswith("bias")]
    assert not any(tensor.any() for tensor in last), "the raw weights of this file are zero"


@pytest.mark.parametrize("name", [name for name in UNETS if name.startswith("score_sde")])
def test_what_module_lists_tell(name):
    tensors = {key.removeprefix("module."): tensor for key, tensor in foreign(name).items()}
    model = CASES[name]["record"]["model"]
    unet, decoder = read_encoder(parts_of(tensors, "all_modules"))
    found = unet.record(8)
    same = ["nf", "ch_mult", "num_res_blocks", "embedding_type", "conditional"]
    if model["name"] == "ncsnpp":
        same += ["resblock_type", "progressive_input", "progressive_combine"]
        assert output_path(decoder, 3) == model["progressive"]
        assert unet.filtered == (model["fir"] and model["progressive_input"] != "input_skip")
    assert {key: found[key] for key in same} == {key: model[key] for key in same}
    attends = set(found["attn_resolutions"])
    assert attends == {size for size in model["attn_resolutions"] if 8 / size < 2 ** len(model["ch_mult"])}
    if not unet.block_resampling:
        assert unet.learned_resampling == model["resamp_with_conv"]


CIFAR_MULTS = [1, 2, 2, 2]
RESIDUAL = {"encoder": "residual", "resample_filter": [1, 3, 3, 1]}
PUBLISHED = {
    "ddpm": {"num_blocks": 2, "resample": "conv", "resample_filter": None, "skip_scale": 1.0, "min_group": 1},
    "ddpm++": {"num_blocks": 4},
    "ddpm++ deep": {"num_blocks": 8},
    "ncsn++ deep": {"num_blocks": 8} | RESIDUAL,
    "ncsn++ ve": {"num_blocks": 4, "embedding": "fourier", "embedding_mult": 2} | RESIDUAL,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes_of_score_sde_are_recognised(name):
    size = {"image_size": 32, "channels": 3, "width": 128, "channel_mult": CIFAR_MULTS, "attention_at": [16]}
    tensors = foreign_shapes(score_sde, {"name": "SongUNet", "args": size | PUBLISHED[name]})
    unet, decoder = read_encoder(parts_of(tensors, "all_modules"))
    found = unet.record(32)
    kept = (found["nf"], found["ch_mult"], found["num_res_blocks"], found["attn_resolutions"])
    assert kept == (128, CIFAR_MULTS, PUBLISHED[name]["num_blocks"], [16])
    assert (found["embedding_type"] == "fourier") == (name == "ncsn++ ve")
    assert (found["progressive_input"] == "residual") == ("ncsn" in name) == found["fir"]
    assert (found["resblock_type"] == "ddpm") == (name == "ddpm")
    assert output_path(decoder, 3) == "none"


class Known:
    """Stands for a file in a test of what shapes tell."""

    path, assumed = "released.pt", {}


def test_published_sizes_of_the_other_families_are_recognised():
    file = Known()
    bedroom = {"image_size": 256, "channels": 3, "width": 256, "channel_mult": [1, 1, 2, 2, 4, 4], "num_blocks": 2}
    for args in ({"image_size": 64, "channels": 3, "num_classes": 1000, "min_group": 1}, bedroom | {"min_group": 1}):
        record = {"name": "ADM", "args": args}
        given = ConsistencyFormat()._record(file, foreign_shapes(consistency, record))
        again = consistency.settings(given)["args"]
        defaults = {"width": 192, "channel_mult": [1, 2, 3, 4], "num_blocks": 3, "resample": "block", "min_group": 1}
        assert {key: again[key] for key in defaults | args} == defaults | args
        assert again["attention_at"] == [32, 16, 8]
    tensors = foreign_shapes(uvit, {"name": "UViT", "args": {"image_size": 32, "channels": 3}})
    again = uvit.settings(uvit_record(UViTFormat(), file, tensors))["args"]
    assert {key: again[key] for key in ("image_size", "width", "depth", "heads", "patch_size", "num_classes")} == {
        "image_size": 32, "width": 512, "depth": 12, "heads": 8, "patch_size": 2, "num_classes": 0,
    }  # fmt: skip
    published = {"image_size": 32, "channels": 4, "num_classes": 1000, "null_class": True, "learn_sigma": True}
    tensors = foreign_shapes(dit, {"name": "DiT", "args": published})
    again = dit_record(DiTFormat(), file, tensors)
    assert (again["hidden_size"], again["depth"], again["num_heads"], again["input_size"]) == (1152, 28, 16, 32)
    assert again["learn_sigma"]
    deep = {"image_size": 32, "channels": 3, "channel_mult": CIFAR_MULTS, "num_blocks": 8, "share_middle": True}
    record = {"name": "MultistageUNet", "args": deep | {"boundaries": [442.0, 630.8]} | RESIDUAL}
    again = multistage.settings(MultistageFormat()._unet(file, foreign_shapes(multistage, record)))["args"]
    assert {key: again[key] for key in deep | RESIDUAL} == deep | RESIDUAL
    assert (again["width"], again["decoder_widths"], again["max_groups"]) == (128, [192, 128, 16], 16)
    assert again["boundaries"] == pytest.approx([442.0, 630.8])


@pytest.mark.parametrize(("name", "options"), [("uvit", {"heads": 2}), ("uvit_options", {"heads": 3})])
@pytest.mark.parametrize("zipped", [True, False])
def test_uvit(tmp_path, name, options, zipped):
    imported = import_file(state_dict_file(tmp_path / "a.pth", name, zipped), **options)
    labelled = {"null_class": False} if CASES[name]["num_classes"] else {}
    assert (imported.format, imported.file.assumed) == ("uvit", {"kernel": "VP"} | labelled)
    assert error(answer(imported.model, name), OUTPUTS[name]) < 2e-5


@pytest.mark.parametrize(("name", "null"), [("dit", True), ("dit_plain", False)])
def test_dit_in_both_of_its_files(tmp_path, name, null):
    options = {"heads": CASES[name]["record"]["num_heads"], "null_class": null}
    plain = import_file(state_dict_file(tmp_path / "DiT.pt", name), **options)
    training = import_file(dit_checkpoint(tmp_path / "train.pt", name), **options)
    for imported in (plain, training):
        assert imported.format == "dit"
        assert error(answer(imported.model, name), OUTPUTS[name]) < 2e-5
    raw = training.raw_model()
    assert error(answer(raw, name), OUTPUTS[name]) > 1e-2
    kernel, meaning = plain.model.denoiser.kernel, plain.model.denoiser.parameterization
    t = torch.tensor([0.001, 1.0], dtype=torch.float64)
    assert meaning.noise_level(t, t).tolist() == pytest.approx([0.0, 999.0])
    assert (kernel.alpha(t)[0] ** 2).item() == pytest.approx(1 - 1e-4, rel=1e-9)


def test_dit_is_guided_as_by_its_own_sampler_on_request(tmp_path):
    path = state_dict_file(tmp_path / "DiT.pt", "dit")
    x, level, labels = inputs("dit")
    t, recorded = (level + 1) / 1000, OUTPUTS["dit.guided"][: len(x), :4]
    three, every = (import_file(path, heads=2, guided_channels=count).model.double() for count in (3, None))
    noise = [GuidedDenoiser(model.denoiser, 4.0).eps(x, t, labels) for model in (three, every)]
    assert error(noise[0], recorded) < 2e-5
    assert error(noise[1][:, :3], recorded[:, :3]) < 2e-5
    assert error(noise[1][:, 3:], recorded[:, 3:]) > 1e-2
    assert "guided_channels" not in json.dumps(record_of(every)), "fingerprints of earlier models stay"
    assert three.fingerprint() != every.fingerprint()
    for count in (0, 5):
        with pytest.raises(UserError, match=f"guided_channels is {count}; give 1 to 4"):
            import_file(path, heads=2, guided_channels=count)


@pytest.mark.parametrize("name", ["consistency_blocks", "consistency_plain"])
def test_consistency_models_as_functions_and_as_denoisers(tmp_path, name):
    path = state_dict_file(tmp_path / "cd_cifar.pt", name)
    options = {"image_size": 8, "channels_per_head": CASES[name]["record"].get("num_head_channels", 32)}
    function, denoiser = (import_file(path, use=use, **options).model for use in ("consistency", "denoiser"))
    assert error(answer(function, name), OUTPUTS[name]) < 2e-5
    x, level, labels = inputs(name)
    sigma = (level / 250).exp()
    sigma[0] = 0.002
    ratio = sigma[:, None, None, None]
    shown = ((x / (ratio**2 + 0.25).sqrt()).float(), (250 * sigma.log()).float(), labels)
    answered = function.denoiser.network(*shown).double()
    above = ratio - 0.002
    expected = 0.25 / (above**2 + 0.25) * x + 0.5 * above / (ratio**2 + 0.25).sqrt() * answered
    assert error(function.denoiser.denoise(x, sigma, labels), expected) < 1e-5
    assert torch.equal(function.denoiser.denoise(x, sigma, labels)[0], x[0]), "the identity at the smallest level"
    expected = 0.25 / (ratio**2 + 0.25) * x + 0.5 * ratio / (ratio**2 + 0.25).sqrt() * answered
    assert error(denoiser.denoiser.denoise(x, sigma, labels), expected) < 1e-5
    assert (function.sampler.evaluations, denoiser.sampler.evaluations) == (1, 79)


def test_the_file_name_tells_the_denoisers_of_consistency_models(tmp_path):
    path = state_dict_file(tmp_path / "edm_cat256_ema.pt", "consistency_blocks")
    assert import_file(path, image_size=8).file.assumed == {"channels_per_head": 64, "use": "denoiser"}


MULTISTAGE = {
    "multistage_ncsnpp": {"image_size": 8},
    "multistage_uvit_one_hot": {"heads": 2},
    "multistage_dit": {"heads": 2},
    "multistage_dit_time_as_class": {"heads": 2, "time_as_class": True},
    "multistage_uvit_three": {"heads": 2},
}


@pytest.mark.parametrize("name", MULTISTAGE)
def test_multistage_checkpoints(tmp_path, name):
    path = score_sde_checkpoint(tmp_path / "a.pth", name)
    imported = import_file(path, **MULTISTAGE[name])
    assert imported.format == "multistage"
    recorded = OUTPUTS.get(f"{name}.rows", OUTPUTS[name])
    assert error(answer(imported.model, name), recorded) < 2e-5
    x, level, labels = inputs(name)
    average = imported.model.denoiser
    assert error(average.eps(x, level / 999, labels), recorded) < 1e-4
    if "de_nfs" in CASES[name]["record"]["model"]:
        assert imported.file.assumed["boundaries"] == [0.442, 0.6308]


def test_multistage_pickle(tmp_path):
    name = "multistage_edm"
    imported = import_file(edm_pickle(tmp_path / "a.pkl", name))
    assert (imported.format, imported.file.found) == ("multistage", "EDMPrecond of MultistageUNet, averaged weights")
    assert error(answer(imported.model, name), OUTPUTS[name]) < 2e-5


def test_other_numbers_of_stages_need_their_boundaries(tmp_path):
    path = score_sde_checkpoint(tmp_path / "a.pth", "multistage_ncsnpp_intervals")
    with pytest.raises(UserError, match=r"boundaries \(it has 2 stages\); type --boundaries VALUE"):
        import_file(path, image_size=8)
    with pytest.raises(UserError, match=r"give 1 ascending times in \(0, 1\)"):
        import_file(path, image_size=8, boundaries=[0.6, 0.2])
    assert import_file(path, image_size=8, boundaries=[0.5], groups=4).model.denoiser.network.routes.boundaries


@pytest.mark.parametrize(
    ("write", "name", "options", "message"),
    [
        (state_dict_file, "uvit", {}, r"does not say its heads \(no published network has width 16\); type --heads"),
        (state_dict_file, "consistency_plain", {}, r"image size \(its network has 3 resolutions\); type --image_size"),
        (
            state_dict_file,
            "consistency_conv",
            {},
            r"\(no published network has the multipliers \[1, 2\]\); type --image_size",
        ),
        (state_dict_file, "uvit", {"kernel": "VB"}, r"unknown kernel of uvit 'VB'; did you mean 'VP'"),
        (state_dict_file, "uvit", {"head": 2}, r"unknown argument of uvit 'head'; did you mean 'heads'"),
        (state_dict_file, "uvit", {"heads": 3}, r"width 16 is not a multiple of heads 3"),
        (score_sde_checkpoint, "score_sde_ddpmpp", {"image_size": 9}, r"image_size 9 cannot be halved"),
        (edm_pickle, "edm_ncsnpp", {"format": "uvit"}, r"not of the format uvit; it looks like edm: type --format edm"),
        (edm_pickle, "edm_ncsnpp", {"format": "emd"}, r"unknown format 'emd'; did you mean 'edm'"),
    ],
)
def test_one_line_tells_what_to_type(tmp_path, write, name, options, message):
    with pytest.raises(UserError, match=message) as caught:
        import_file(write(tmp_path / "released.pt", name), **options)
    assert "\n" not in str(caught.value)


def test_settings_that_do_not_fit_the_weights(tmp_path):
    for changes, message in (
        ({"model_channels": 16}, "weights are fewer than those of the network it describes"),
        ({"num_blocks": 10**9}, "weights are fewer"),
        ({"model_channels": 4}, "first|fit"),
        ({"model_channels": "eight"}, "do not fit together"),
        ({"channel_mult": None}, "do not fit together"),
        ({"num_block": 1}, "did you mean 'num_blocks'"),
        ({"embedding_type": "sinus"}, "embedding"),
    ):
        path = edm_pickle(tmp_path / "a.pkl", "edm_residual_box", **changes)
        with pytest.raises(UserError, match=message) as caught:
            import_file(path)
        assert "\n" not in str(caught.value)


def test_files_of_nobody(tmp_path):
    path = tmp_path / "a.pt"
    one = {"weight": torch.zeros(2)}
    strange = ({}, one, {"model": one, "ema": None}, {"ema": one}, {"ema": {"shadow_params": 3}}, [1], "text", None)
    for content in strange:
        torch.save(content, path)
        with pytest.raises(UserError, match=r"is of no known format \(consistency, .*, dit, edm"):
            format_of_path(path)
    for content, message in ((b"", "is empty"), (b"\xc1text", "neither a pickle nor a file of torch.save, safet")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            format_of_path(path)
    with pytest.raises(UserError, match=r"is a folder; name the checkpoint file in it, for example .*a.pt"):
        format_of_path(tmp_path)
    with pytest.raises(UserError, match="there is no file"):
        format_of_path(tmp_path / "none.pkl")


def format_of_path(path):
    return format_of(ForeignFile(path))


def test_load_reads_released_files_as_they_are(files):
    path, options = files["dit"]
    with pytest.raises(UserError, match="type --heads"):
        repro.load(path)
    averaged, raw = (repro.load(path, weights=weights, **options) for weights in ("ema", "raw"))
    assert "sha256" in averaged.origin
    assert averaged.origin.endswith("(ema)")
    assert not averaged.training
    assert averaged.fingerprint() != raw.fingerprint()
    assert repro.load(files["edm"][0]).sample([0, 1]).shape == (2, 3, 8, 8)
