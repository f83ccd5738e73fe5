"""What makes a number misleading is said, and nothing is said where nothing is wrong."""

import pytest
import torch

from repro.banks import Bank
from repro.comparison import compare
from repro.comparison.remarks import noise_correlation
from repro.data import Digits
from repro.images import to_uint8
from repro.noise import draw_noise

N = 60
MODEL = {"group": "models", "name": "Exact", "args": {}}


@pytest.fixture(scope="module")
def digits():
    return Digits(subset=4 * N).images()


def bank(images, **more):
    return Bank.from_images(images, model=MODEL, **more)


def said(banks, *arguments, **options):
    return compare(banks, "Pixels", *arguments, names=list("abcdefgh"[: len(banks)]), **options).remarks()


def test_nothing_is_said_of_two_systems_that_draw_different_digits(digits):
    banks = [bank(digits[:N]), bank(digits[N : 2 * N])]
    assert said(banks, digits[2 * N :], threshold=0.95) == []


def test_constant_images_have_a_chance_level_near_one(digits):
    black = torch.zeros_like(digits[:N])
    black[:, :, 0, 0] = 7
    first, second, *_ = said([bank(black), bank(black)])
    assert first.startswith("RP: the chance level is near 1: 1.000 of shuffled noises count as alike (a")
    assert second.startswith("MAE: the chance level is near 1")


def test_a_threshold_that_unrelated_images_pass(digits):
    (remark,) = said([bank(digits[:N]), bank(digits[N : 2 * N])], threshold=0.6)
    assert remark.startswith("RP: unrelated images pass the threshold 0.6: 0.")
    assert "choose a stricter one" in remark


def test_systems_that_pass_the_noise_on(digits):
    seeds = range(N)
    noise = draw_noise(seeds, (1, 8, 8))
    banks = [bank(to_uint8(noise.clamp(-1, 1))), bank(to_uint8((noise / 4).clamp(-1, 1))), bank(digits[:N])]
    result = compare(banks, "Pixels", digits[N:], names=list("abc"))
    assert result.scores["RP"].rates[0, 1] > 0.9
    assert result.scores["MAE"].rates[0, 1] == 0
    text = " ".join(result.remarks())
    for name in "ab":
        assert f"{name} passes the noise on" in text
        assert f"{name} is far from its training images" in text
    assert "c passes" not in text
    assert "c is far" not in text
    assert "a and b have RP" in text
    assert "but MAE score 0.000, far from the data" in text
    assert "warning: a passes the noise on" in str(result)


def test_the_correlation_is_that_of_a_plain_loop(digits):
    seeds = torch.arange(5, 15)
    noise = draw_noise(seeds.tolist(), (1, 8, 8))
    images = to_uint8((noise * 0.3 + digits[:10].float() / 127.5 - 1).clamp(-1, 1))
    expected = sum(
        abs(float(torch.corrcoef(torch.stack([x.flatten().double(), y.flatten().double()]))[0, 1]))
        for x, y in zip(images, noise, strict=True)
    )
    assert noise_correlation(images, seeds) == pytest.approx(expected / 10, abs=1e-6)


def test_images_from_elsewhere_and_one_noise(digits):
    banks = [bank(digits[:1]), Bank.from_images(digits[N : N + 1])]
    texts = said(banks)
    assert any(text.startswith("nothing says that the images of b share noises") for text in texts)
    assert any(text.startswith("there is no chance level") for text in texts)


def test_chance_of_gl_is_that_of_the_training_images(digits):
    train = digits[: 2 * N]
    train[1] = train[0]
    result = compare([bank(digits[2 * N : 3 * N]), bank(digits[3 * N :])], "Pixels", train, threshold=0.9)
    pixels = train.double().flatten(1)
    pixels = torch.nn.functional.normalize(pixels - pixels.mean(1, keepdim=True), dim=1)
    similarity = (pixels @ pixels.T).fill_diagonal_(-1).amax(1)
    for row in result.table("gl"):
        assert (row["unseen_count"], row["unseen_n"]) == (int((similarity <= 0.9).sum()), 2 * N)
        assert row["unseen_low"] < row["unseen_rate"] < row["unseen_high"]
        assert abs(row["rate"] - row["unseen_rate"]) < 0.15  # fresh digits are about as new as digits to each other
        assert f"{row['unseen_rate']:.3f}" in str(result)


def test_names_cannot_steer_the_terminal_or_a_spreadsheet(digits, tmp_path):
    names = ["=1+2", "edm\x1b[2J\u202e"]
    result = compare([bank(digits[:N]), bank(digits[N : 2 * N])], "Pixels", names=names)
    assert "\x1b" not in str(result)
    assert "edm\\x1b[2J\\u202e" in str(result)
    result.write(tmp_path, figures=False)
    for path in tmp_path.glob("*.csv"):
        text = path.read_text()
        assert not {"\x1b", "\u202e"} & set(text)
        assert all(not cell.startswith("=") for line in text.splitlines() for cell in line.split(","))
    assert "'=1+2" in (tmp_path / "rp.csv").read_text()
