"""The layers of the U-Nets against their formulas, written out slowly."""

import math

import pytest
import torch
from torch import nn

from repro.errors import UserError
from repro.networks import ADM, MultistageUNet, SongUNet
from repro.networks.layers.basic import dropout, group_norm, initialise
from repro.networks.layers.embeddings import Conditioning, FourierEmbedding, PositionalEmbedding
from repro.networks.layers.resampling import DownConv, Downsample, UpConv, Upsample, check_filter
from repro.networks.layers.unet import Encoder

FILTERS = [[1, 1], [1, 2, 1], [1, 3, 3, 1], [1, 4, 6, 4, 1], [1, 5, 10, 10, 5, 1]]


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shaken(network, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return network


def weights_of(taps):
    line = torch.tensor(taps, dtype=torch.float64) / sum(taps)
    return torch.outer(line, line)


def slow_down(x, taps):
    """Every output pixel is a weighted mean of the pixels around pixel 2i, zeros outside; the filter's centre is half a
    pixel further for filters of even length."""
    size, kernel = x.shape[-1], weights_of(taps)
    before = (len(taps) - 1) // 2
    out = torch.zeros(size // 2, size // 2, dtype=x.dtype)
    for i in range(size // 2):
        for j in range(size // 2):
            for a in range(len(taps)):
                for b in range(len(taps)):
                    row, column = 2 * i + a - before, 2 * j + b - before
                    if 0 <= row < size and 0 <= column < size:
                        out[i, j] += kernel[a, b] * x[row, column]
    return out


def slow_up(x, taps):
    """Every pixel spreads its value, four times, over the pixels around pixel 2i of the finer grid."""
    size, kernel = x.shape[-1], 4 * weights_of(taps)
    before = (len(taps) - 2) // 2
    out = torch.zeros(2 * size, 2 * size, dtype=x.dtype)
    for i in range(size):
        for j in range(size):
            for a in range(len(taps)):
                for b in range(len(taps)):
                    row, column = 2 * i + a - before, 2 * j + b - before
                    if 0 <= row < 2 * size and 0 <= column < 2 * size:
                        out[row, column] += kernel[a, b] * x[i, j]
    return out


@pytest.mark.parametrize("taps", FILTERS, ids=str)
def test_resampling_is_filtering(taps):
    x = normal(1, 2, 6, 6)
    taps = check_filter(taps)
    down, up = Downsample(taps).double()(x), Upsample(taps).double()(x)
    for channel in range(2):
        torch.testing.assert_close(down[0, channel], slow_down(x[0, channel], taps), atol=1e-12, rtol=0)
        torch.testing.assert_close(up[0, channel], slow_up(x[0, channel], taps), atol=1e-12, rtol=0)


@pytest.mark.parametrize("taps", [taps for taps in FILTERS if len(taps) % 2 == 0], ids=str)
def test_up_is_four_times_the_adjoint_of_down(taps):
    taps = check_filter(taps)
    coarse, fine = normal(2, 3, 4, 4), normal(2, 3, 8, 8, seed=1)
    raised, lowered = Upsample(taps).double()(coarse), Downsample(taps).double()(fine)
    torch.testing.assert_close((raised * fine).sum(), 4 * (coarse * lowered).sum(), atol=1e-10, rtol=0)


def test_no_filter_is_mean_and_nearest_neighbour():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert Downsample(None)(x).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert Upsample(None)(x)[0, 0, :2, :4].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


@pytest.mark.parametrize("taps", FILTERS, ids=str)
def test_filtered_down_convolution_pads_once(taps):
    """The image continues with zeros for filter and convolution together, so wider zeros around it change nothing."""
    taps = check_filter(taps)
    layer = DownConv(2, 3, taps).double()
    x = normal(1, 2, 24, 24)
    wide = nn.functional.pad(x, (8, 8, 8, 8))
    torch.testing.assert_close(layer(wide)[..., 4:-4, 4:-4], layer(x), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("symmetric", "first"), [(True, -1), (False, 0)])
def test_strided_convolution_starts_where_published(symmetric, first):
    layer = DownConv(1, 1, None, symmetric=symmetric)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.weight[0, 0, 0, 0] = 1
        layer.conv.bias.zero_()
    x = torch.arange(1.0, 17.0).view(1, 1, 4, 4)
    expected = torch.tensor(
        [
            [
                float(x[0, 0, 2 * i + first, 2 * j + first]) if 2 * i + first >= 0 and 2 * j + first >= 0 else 0.0
                for j in range(2)
            ]
            for i in range(2)
        ]
    )
    assert torch.equal(layer(x)[0, 0], expected)


def test_up_convolution_is_convolution_of_the_raised_image():
    layer = UpConv(2, 3, (1.0, 3.0, 3.0, 1.0)).double()
    x = normal(1, 2, 4, 4)
    torch.testing.assert_close(layer(x), layer.conv(Upsample((1.0, 3.0, 3.0, 1.0)).double()(x)))


@pytest.mark.parametrize("taps", [[1], [1, 2], [1, -1, -1, 1, 0], [-1, 1, 1, -1]])
def test_bad_filters_are_refused(taps):
    with pytest.raises(UserError, match=r"resample_filter is \[.*symmetric"):
        check_filter(taps)


@pytest.mark.parametrize(("endpoint", "sine_first"), [(True, True), (False, False)])
def test_positional_embedding(endpoint, sine_first):
    levels = torch.tensor([0.3, 999.0], dtype=torch.float32)
    embedded = PositionalEmbedding(9, endpoint, sine_first)(levels)
    for row, level in enumerate(levels.tolist()):
        angles = [level * 10000 ** (-k / (3 if endpoint else 4)) for k in range(4)]
        waves = [math.sin(a) for a in angles], [math.cos(a) for a in angles]
        expected = [*waves[1 - sine_first], *waves[sine_first], 0.0]
        torch.testing.assert_close(embedded[row], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=0)


def test_fourier_embedding_uses_its_stored_frequencies():
    embedding = FourierEmbedding(6, scale=2.0)
    level = torch.tensor([1.7])
    angles = [2 * math.pi * 1.7 * w for w in embedding.frequencies.tolist()]
    expected = torch.tensor([*map(math.sin, angles), *map(math.cos, angles)], dtype=torch.float64)
    torch.testing.assert_close(embedding(level)[0], expected, atol=1e-5, rtol=0)
    assert "frequencies" in embedding.state_dict()


def test_fourier_scale_is_the_standard_deviation():
    torch.manual_seed(0)
    assert FourierEmbedding(20000, scale=3.0).frequencies.std().item() == pytest.approx(3.0, rel=0.03)


def test_embedding_keeps_large_levels_apart_in_half_precision():
    network = shaken(SongUNet(8, 1, width=16, channel_mult=[1], num_blocks=1).eval()).bfloat16()
    x = torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16)
    first, second = network(x, torch.tensor([990.0, 991.0]))
    assert not torch.equal(first, second)


def test_attention_is_softmax_attention_by_head():
    network = shaken(SongUNet(4, 1, width=8, channel_mult=[1], num_blocks=1, num_heads=2)).double().eval()
    attention = network.middle.block1.attention
    x = normal(2, 8, 3, 3)
    tokens = attention.norm(x).flatten(2)
    q, k, v = (attention.qkv.weight @ tokens + attention.qkv.bias[:, None]).chunk(3, dim=1)
    mixed = torch.zeros_like(q)
    for head in (slice(0, 4), slice(4, 8)):
        for image in range(2):
            scores = q[image, head].T @ k[image, head] / math.sqrt(4)
            mixed[image, head] = v[image, head] @ scores.softmax(dim=1).T
    h = attention.proj.weight @ mixed + attention.proj.bias[:, None]
    torch.testing.assert_close(attention(x), (x + h.view_as(x)) * math.sqrt(0.5), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("scheme", "bound"), [("xavier", math.sqrt(6 / (18 + 45))), ("fan_in", 1 / math.sqrt(18))])
def test_initial_weights_fill_the_published_range(scheme, bound):
    torch.manual_seed(0)
    layer = initialise(nn.Conv2d(2, 5, 3), scheme, gain=0.5)
    assert layer.weight.abs().max().item() == pytest.approx(0.5 * bound, rel=0.05)
    assert layer.weight.abs().max().item() <= 0.5 * bound
    assert layer.weight.std().item() == pytest.approx(0.5 * bound / math.sqrt(3), rel=0.15)
    assert bool(layer.bias.any()) == (scheme == "fan_in")


def test_fresh_networks_answer_nearly_nothing():
    x, level = normal(2, 1, 8, 8).float(), torch.tensor([0.1, 0.9])
    assert not ADM(8, 1, width=16, channel_mult=[1, 2], num_blocks=1)(x, level).any()
    fresh = SongUNet(8, 1, width=16, channel_mult=[1, 2], num_blocks=1)(x, level)
    assert 0 < fresh.abs().max() < 1e-3


def test_dropout_acts_in_training_only():
    network = shaken(SongUNet(8, 1, width=16, channel_mult=[1], num_blocks=1, dropout=0.5))
    x, level = normal(2, 1, 8, 8).float(), torch.tensor([0.1, 0.9])
    torch.manual_seed(0)
    assert not torch.equal(network.train()(x, level), network(x, level))
    assert torch.equal(network.eval()(x, level), network(x, level))


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.93])
def test_dropout_drops_every_entry_alike(probability):
    torch.manual_seed(0)
    x = torch.ones(40_001, 4, 1, requires_grad=True)
    dropped = dropout(x, probability, training=True)
    kept = dropped != 0
    assert torch.allclose(dropped[kept], torch.tensor(1 / (1 - probability)), rtol=3e-4)
    deviation = math.sqrt(probability * (1 - probability) / 40_001)
    for place in range(4):
        assert kept[:, place].double().mean().item() == pytest.approx(1 - probability, abs=5 * deviation)
    pairs = torch.corrcoef(kept[..., 0].double().T) - torch.eye(4)
    assert pairs.abs().max() < 5 / math.sqrt(40_001)
    dropped.sum().backward()
    assert torch.equal(x.grad, dropped)


def test_dropout_follows_the_seed():
    x = torch.ones(5, 3)
    torch.manual_seed(3)
    first = dropout(x, 0.5, training=True)
    torch.manual_seed(3)
    assert torch.equal(first, dropout(x, 0.5, training=True))
    assert dropout(x, 0.5, training=False) is x


def conditioning(label_dropout, late):
    torch.manual_seed(0)
    return Conditioning(PositionalEmbedding(8), 6, 4, 0, label_dropout, late, "silu", "xavier")


@pytest.mark.parametrize("late", [False, True])
def test_label_dropout_gives_the_embedding_without_a_label(late):
    layer = conditioning(0.3, late)
    level, labels = torch.zeros(4000), torch.full((4000,), 2)
    kept, none = layer.eval()(level[:1], labels[:1], None), layer(level[:1], None, None)
    assert not torch.allclose(kept, none)
    assert torch.equal(layer(level[:1], torch.tensor([4]), None), none)
    rows = layer.train()(level, labels, None)
    dropped = (rows - none).abs().amax(dim=1) < 1e-6
    assert ((rows - kept).abs().amax(dim=1) < 1e-6).sum() + dropped.sum() == 4000
    assert dropped.double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_no_augmentation_is_a_zero_augmentation_vector():
    network = shaken(SongUNet(8, 1, width=16, channel_mult=[1], num_blocks=1, augment_dim=9).eval())
    x, level = normal(2, 1, 8, 8).float(), torch.tensor([0.1, 0.9])
    plain = network(x, level)
    assert torch.equal(plain, network(x, level, augment_labels=torch.zeros(2, 9)))
    assert not torch.equal(plain, network(x, level, augment_labels=torch.ones(2, 9)))


def multistage(**options):
    settings = {"width": 8, "channel_mult": [1, 2], "num_blocks": 1, "decoder_widths": [16, 8, 4]} | options
    return shaken(MultistageUNet(8, 1, **({"boundaries": [0.25, 0.5]} | settings)).eval())


@pytest.mark.parametrize("share_middle", [False, True])
def test_every_image_goes_through_the_decoder_of_its_level(share_middle):
    network = multistage(share_middle=share_middle)
    level = torch.tensor([0.9, 0.25, 0.1, 0.5, 0.26, 0.51])
    assert network.stage_of(level).tolist() == [2, 0, 0, 1, 1, 2]
    x = normal(6, 1, 8, 8).float()
    mixed = network(x, level)
    for stage in range(3):
        rows = network.stage_of(level) == stage
        torch.testing.assert_close(mixed[rows], network(x[rows], level[rows], stage=stage), atol=1e-5, rtol=1e-5)
        others = network(x[rows], level[rows], stage=(stage + 1) % 3)
        assert not torch.allclose(mixed[rows], others, atol=1e-3)


def test_intervals_may_share_a_decoder():
    network = multistage(decoder_widths=[16, 8], interval_decoders=[0, 1, 0])
    assert network.stage_of(torch.tensor([0.1, 0.3, 0.7])).tolist() == [0, 1, 0]


def test_only_the_chosen_decoder_learns():
    network = multistage()
    network(normal(2, 1, 8, 8).float(), torch.tensor([0.3, 0.4])).sum().backward()
    learns = [any(p.grad is not None for p in stage.parameters()) for stage in network.stages]
    assert learns == [False, True, False]


def small(cls, **options):
    return cls(8, 1, **({"width": 16, "channel_mult": [1, 2], "num_blocks": 1} | options))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: SongUNet(28, 1, channel_mult=[1, 1, 1, 1]),
            r"image_size 28 cannot be halved 3 times .* multiple of 8",
        ),
        (lambda: ADM(9, 1, channel_mult=[1, 1]), r"image_size 9 cannot be halved 1 times by ADM .* multiple of 2"),
        (lambda: small(SongUNet, channel_mult=[]), r"channel_mult of SongUNet is empty"),
        (lambda: small(SongUNet, encoder="residul"), r"unknown encoder 'residul'; did you mean 'residual'\?"),
        (lambda: small(SongUNet, embedding="sine"), r"unknown embedding 'sine'.*positional, fourier"),
        (lambda: small(SongUNet, activation="gelu"), r"unknown activation 'gelu'.*leaky_relu"),
        (lambda: small(ADM, resample="blocks"), r"unknown resample 'blocks'; did you mean 'block'\?"),
        (lambda: small(SongUNet, width=18), r"18 channels do not divide into 4 groups"),
        (lambda: small(SongUNet, num_heads=3), r"do not divide into 3 attention heads"),
        (lambda: small(SongUNet, resample_filter=[1, 2]), r"resample_filter is \[1.0, 2.0\]"),
        (lambda: small(SongUNet, num_classes=3, noise_conditional=False), r"needs noise_conditional=True"),
        (lambda: SongUNet(8, 0), r"channels of SongUNet is 0; give at least 1"),
        (lambda: SongUNet(8, 1, -1), r"num_classes of SongUNet is -1"),
        (lambda: multistage(boundaries=[0.5, 0.25]), r"3 intervals .* need 2 ascending boundaries"),
        (lambda: multistage(boundaries=[0.5]), r"3 intervals .* need 2 ascending boundaries"),
        (lambda: multistage(interval_decoders=[0, 1, 1]), r"use each of the decoders 0 to 2"),
        (lambda: multistage(encodr="skip"), r"unknown argument of MultistageUNet 'encodr'; did you mean 'encoder'\?"),
        (lambda: multistage()(torch.zeros(1, 1, 8, 8), torch.zeros(1), stage=3), r"stage is 3; .* decoders 0 to 2"),
    ],
)
def test_mistakes_are_told_in_one_line(build, message):
    with pytest.raises(UserError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def test_group_norm_rule():
    assert [group_norm(c, 32, 4, 1e-6).num_groups for c in (2, 8, 96, 128, 256)] == [1, 2, 24, 32, 32]
    assert group_norm(32, 32, 1, 1e-6).num_groups == 32


def test_encoder_hands_over_what_it_announces():
    for path, combine in (("standard", "sum"), ("residual", "sum"), ("skip", "cat")):
        network = small(SongUNet, encoder=path, combine=combine, channel_mult=[1, 2, 1])
        assert isinstance(network.encoder, Encoder)
        embedding = torch.zeros(2, 64)
        x, skips = network.encoder(torch.zeros(2, 1, 8, 8), embedding)
        assert [skip.shape[1] for skip in skips] == network.encoder.skip_channels
        assert x.shape[1:] == (network.encoder.out_channels, 2, 2)
