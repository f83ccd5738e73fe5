"""Comparisons of conditional with unconditional banks equal the plain functions."""

import pytest
import torch
from conditional_banks import CLASSES, LABELS, NOISES, conditional

from repro.banks import Bank
from repro.comparison import compare, derangement
from repro.descriptors.pixels import Pixels
from repro.errors import UserError
from repro.metrics import functional


def test_an_unconditional_with_a_conditional_bank_gives_between_rp(drawn):
    (a, _, _), (plain, _) = drawn
    for order in (1, -1):
        banks = [Bank.from_images(plain), conditional(a)][::order]
        found = compare(banks, "Pixels", names=["u", "c"][::order], control_seed=5)
        assert list(found.scores) == ["Between RP"]
        features = Pixels().features(plain), Pixels().features(a).unflatten(0, (NOISES, CLASSES))
        score = found.scores["Between RP"]
        assert score.rates[0, 1] == functional.between_reproducibility_score(*features, 0.8)
        shuffled = features[1][derangement(NOISES, 5)]
        assert score.control_rates[0, 1] == functional.between_reproducibility_score(features[0], shuffled, 0.8)
        assert score.rates[0, 1] > 0.9 > 0.2 > score.control_rates[0, 1]
        _, similarity, label = functional.between_matches(*features, 0.8)
        outcome = score.outcomes[0, 1]
        assert outcome.values.tolist() == similarity.tolist()
        assert (outcome.second if order > 0 else outcome.first).tolist() == (
            torch.arange(NOISES) * CLASSES + label
        ).tolist()
        assert (outcome.first if order > 0 else outcome.second).tolist() == list(range(NOISES))
        assert score.n == NOISES


def test_other_labels_or_noises_are_one_line(drawn):
    (a, b, _), (plain, _) = drawn
    with pytest.raises(UserError, match="'two' and 'one' were drawn under different labels"):
        compare([conditional(a), conditional(b, LABELS.flip(0))], "Pixels", names=["one", "two"])
    with pytest.raises(UserError, match="bank 'two' holds seeds 5-44, 'one' 0-39; compare those in common"):
        compare([Bank.from_images(plain), conditional(a, seeds=range(5, 45))], "Pixels", names=["one", "two"])
    found = compare([Bank.from_images(plain), conditional(a, seeds=range(5, 45))], "Pixels", seeds="5-39")
    assert found.scores["Between RP"].n == 35
