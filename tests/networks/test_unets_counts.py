"""The U-Nets have exactly as many trained parameters as the published networks.

Counted in the public implementations at their published configurations (NVlabs/edm, yang-song/score_sde_pytorch,
LucasYFL/Multistage_Diffusion); DDPM's own 35.7 million stand in Ho et al. 2020, appendix B.
"""

import pytest
import torch

from repro.networks import ADM, MultistageUNet, SongUNet

FOUR_LEVELS = {"channel_mult": [1, 2, 2, 2], "dropout": 0.1}
DDPM = {"num_blocks": 2, "resample": "conv", "resample_filter": None, "skip_scale": 1.0, "min_group": 1}
NCSNPP = {"encoder": "residual", "resample_filter": [1, 3, 3, 1]}
FOURIER = {"embedding": "fourier", "embedding_mult": 2}
DEEP = {"num_blocks": 8}

SONG = {
    "EDM, ddpmpp, CIFAR-10": (55_733_891, {"augment_dim": 9}),
    "EDM, ddpmpp, CIFAR-10, conditional": (55_735_299, {"augment_dim": 9, "num_classes": 10}),
    "EDM, ncsnpp, CIFAR-10": (56_397_827, {"augment_dim": 9, **NCSNPP, **FOURIER}),
    "EDM, ncsnpp, CIFAR-10, conditional": (56_400_643, {"augment_dim": 9, "num_classes": 10, **NCSNPP, **FOURIER}),
    "DDPM (Ho et al.)": (35_746_307, FOUR_LEVELS | DDPM | {"attention_last": False}),
    "DDPM (Song et al.)": (35_218_947, FOUR_LEVELS | DDPM),
    "DDPM++": (61_804_419, FOUR_LEVELS),
    "DDPM++ deep": (106_632_579, FOUR_LEVELS | DEEP),
    "NCSN++ (VP)": (62_693_251, FOUR_LEVELS | NCSNPP),
    "NCSN++ (VE)": (62_758_787, FOUR_LEVELS | NCSNPP | FOURIER),
    "NCSN++ deep (VE)": (107_586_947, FOUR_LEVELS | NCSNPP | FOURIER | DEEP),
}


def count(network):
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("name", SONG)
def test_song_unet_for_cifar10(name):
    expected, settings = SONG[name]
    with torch.device("meta"):
        assert count(SongUNet(32, 3, **settings)) == expected


def test_defaults_are_edm_for_cifar10():
    with torch.device("meta"):
        assert count(SongUNet(32, 3)) == 55_733_891 - 9 * 128


@pytest.mark.parametrize("min_group", [1, 4])
def test_adm_for_imagenet_64(min_group):
    with torch.device("meta"):
        assert count(ADM(64, 3, 1000, min_group=min_group)) == 295_899_267


def test_multistage_edm():
    with torch.device("meta"):
        assert count(MultistageUNet(32, 3, augment_dim=9)) == 128_793_385


def test_multistage_deep():
    with torch.device("meta"):
        network = MultistageUNet(32, 3, share_middle=True, boundaries=[442.0, 630.8], **(FOUR_LEVELS | NCSNPP | DEEP))
    decoders = [count(stage) for stage in network.stages]
    shared = count(network) - sum(decoders)
    assert count(network) == 237_169_337
    assert shared == 43_482_624
    assert [shared + decoder for decoder in decoders] == [169_478_467, 107_521_411, 47_134_707]


@pytest.mark.parametrize("stages", [4, 5])
def test_multistage_grows_by_whole_decoders(stages):
    options = FOUR_LEVELS | NCSNPP | {"share_middle": True, "num_blocks": 2}
    with torch.device("meta"):
        three = MultistageUNet(32, 3, decoder_widths=[64] * 3, boundaries=[1.0, 2.0], **options)
        more = MultistageUNet(32, 3, decoder_widths=[64] * stages, boundaries=list(range(1, stages)), **options)
    assert count(more) - count(three) == (stages - 3) * count(three.stages[0])
