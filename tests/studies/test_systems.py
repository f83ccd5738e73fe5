"""The twenty systems of Table 1: what their configs say, and how large the networks are that they build.

The published numbers of parameters were counted in the public implementations at their published configurations
(yang-song/score_sde_pytorch, NVlabs/edm, openai/consistency_models_cifar10, baofff/U-ViT,
LucasYFL/Multistage_Diffusion).
"""

import pytest
import torch
import yaml
from study_runs import options

from repro import registry
from repro.cli.configs import config_path
from repro.studies.systems import SYSTEMS

TABLE = {
    "DDPMv1": ("VP", "DPMSolver", "UniformTimes"),
    "DDPMv2": ("DiscreteVP", "DPMSolver", "DiscreteTimes"),
    "DDPMv3": ("VP", "DPMSolver", "UniformTimes"),
    "DDPMv4": ("VP", "DPMSolver", "UniformTimes"),
    "DDPMv5": ("VP", "RK45", "UniformTimes"),
    "DDPMv6": ("SubVP", "RK45", "UniformTimes"),
    "DDPMv7": ("SubVP", "RK45", "UniformTimes"),
    "DDPMv8": ("SubVP", "RK45", "UniformTimes"),
    "Multistagev1": ("VP", "DPMSolver", "UniformTimes"),
    "Multistagev2": ("VP", "DPMSolver", "UniformTimes"),
    "Multistagev3": ("VP", "DPMSolver", "UniformTimes"),
    "EDMv1": ("EDM", "Heun", "LogNormalTimes"),
    "EDMv2": ("EDM", "Heun", "LogNormalTimes"),
    "UViT": ("VP", "DPMSolver", "UniformTimes"),
    "DiT": ("VP", "DPMSolver", "UniformTimes"),
}
AUGMENTATION = 9
MULTISTAGE = {"shared": 43_482_624, "decoders": [125_995_843, 64_038_787, 3_652_083]}
SIZES = {
    **dict.fromkeys(("DDPMv1", "DDPMv2", "DDPMv7"), 35_218_947),
    **dict.fromkeys(("DDPMv3", "DDPMv8"), 61_804_419),
    **dict.fromkeys(("DDPMv4", "DDPMv5", "DDPMv6"), 106_632_579),
    "EDMv1": 55_733_891 - AUGMENTATION * 128,
    **dict.fromkeys(("EDMv2", "CT"), 56_397_827 - AUGMENTATION * 256),
    "UViT": 44_255_328,
    "DiT": 130_352_688 - 1_001 * 768,
    "Multistagev1": 237_169_337,
    "Multistagev2": MULTISTAGE["shared"] + sum(MULTISTAGE["decoders"]) + 125_995_843,
    "Multistagev3": MULTISTAGE["shared"] + sum(MULTISTAGE["decoders"]) + 125_995_843 + 3_652_083,
}
"""Without the inputs for EDM's augmentation and without the table of 1,001 classes that the public DiT keeps unused."""


def config(name):
    return yaml.safe_load(config_path(SYSTEMS[name].config).read_text())


def model(name):
    return config(name)["model"]["init_args"]


def class_of(value):
    return value["class_path"] if isinstance(value, dict) else value


def arguments(value):
    return value.get("init_args", {}) if isinstance(value, dict) else {}


def test_there_are_twenty():
    assert len(SYSTEMS) == 20
    assert len({system.config for system in SYSTEMS.values()}) == 20


@pytest.mark.parametrize("name", TABLE)
def test_kernel_sampler_and_times_are_those_of_the_table(name):
    settings = model(name)
    assert tuple(class_of(settings[key]) for key in ("kernel", "sampler", "times")) == TABLE[name]


@pytest.mark.parametrize("name", SIZES)
def test_the_config_builds_a_network_of_the_published_size(name):
    network = model(name)["network"]
    with torch.device("meta"):
        built = registry.build(
            "networks", class_of(network), image_size=32, channels=3, num_classes=0, **arguments(network)
        )
    assert sum(weight.numel() for weight in built.parameters()) == SIZES[name]


def test_stages_are_wide_as_published():
    first = MULTISTAGE["shared"] + sum(MULTISTAGE["decoders"])
    assert first == SIZES["Multistagev1"]
    for name, stages in (("Multistagev1", 3), ("Multistagev2", 4), ("Multistagev3", 5)):
        settings = arguments(model(name)["network"])
        assert len(settings["decoder_widths"]) == stages
        assert {442.0, 630.8} <= set(settings["boundaries"])
        assert settings["boundaries"] == sorted(settings["boundaries"])


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name.startswith("Progressive")])
def test_progressive_students_halve_down_to_their_steps_and_train_as_long_as_published(name):
    settings = config(name)
    student, steps = settings["model"]["init_args"], settings["trainer"]["max_steps"]
    assert student["end_steps"] == {"1": 1, "2": 16, "3": 64}[name[-1]]
    stages = (student["start_steps"] // student["end_steps"]).bit_length()
    assert student["start_steps"] == student["end_steps"] << (stages - 1)
    assert student["stage_images"] == 50_000 * settings["data"]["init_args"]["batch_size"]
    assert steps == 50_000 * stages + (50_000 if student["end_steps"] == 1 else 0)


def test_averages_forget_as_published():
    """0.9999 a step of 128 images."""
    assert 0.5 ** (128 / model("DDPMv3")["ema_halflife"]) == pytest.approx(0.9999, abs=1e-7)
    assert 0.5 ** (512 / model("CT")["ema_halflife"]) == pytest.approx(0.9999, abs=1e-7)


def test_teachers_are_there():
    for system in SYSTEMS.values():
        for other in (system.teacher, system.narrow_teacher, system.weights):
            assert not other or other in SYSTEMS
        if system.teacher:
            assert model(system.name)["teacher"] == f"runs/{SYSTEMS[system.teacher].config}"


def test_a_system_is_trained_with_its_own_settings_in_every_study(tmp_path):
    """What a study adds are its data, lengths, folders and seeds; the model is the one of `similarity`."""
    studies = [registry.load("studies", name)() for name in registry.names("studies")]
    usual = {job.name: _model(job) for job in registry.load("studies", "similarity")().jobs(tmp_path, "cpu")}
    compared = [
        (job.name, _model(job), usual[job.name])
        for study in studies
        if "cpu" in study.scales and study.name != "similarity"
        for job in study.jobs(tmp_path, "cpu")
        if job.name in usual
    ]
    assert len(compared) > 10
    for name, own, expected in compared:
        assert own == expected, name


def _model(job):
    return {key: value for key, value in options(job).items() if key.startswith("model.") and key != "model.seed"}
