"""Counts of every pair equal the plain functions, whatever the chunks."""

import numpy as np
import pytest
import torch

from repro.banks import Bank
from repro.comparison import compare, derangement
from repro.comparison.counting import check_size
from repro.errors import UserError
from repro.metrics import PairMetric, ReproducibilityScore
from repro.metrics.functional import mae_score, reproducibility_score

N = 60


def test_every_pair_equals_the_plain_functions(found, images):
    shuffle = derangement(N, 3)
    for i in range(4):
        for j in range(4):
            first, second = sorted((i, j))
            x, y = images[first], images[second]
            assert found.scores["RP"].rates[i, j] == reproducibility_score(x, y, 0.8)
            assert found.scores["MAE"].rates[i, j] == mae_score(x, y)
            assert found.scores["RP"].control_rates[i, j] == reproducibility_score(x, y[shuffle], 0.8)
            assert found.scores["MAE"].control_rates[i, j] == mae_score(x, y[shuffle])
    assert len(set(found.scores["RP"].counts.flatten().tolist())) > 4
    assert len(set(found.scores["MAE"].counts.flatten().tolist())) > 4
    assert found.scores["RP"].counts.dtype == np.int64
    assert (np.diag(found.scores["RP"].counts) == N).all()


def test_the_control_is_at_chance_and_fixed(found, images):
    assert (np.triu(found.scores["RP"].control, 1) <= 3).all()
    banks = [Bank.from_images(each) for each in images]
    assert (compare(banks, "Pixels", control_seed=3).scores["RP"].control == found.scores["RP"].control).all()


@pytest.mark.parametrize("n", [2, 3, 1000])
def test_a_derangement_moves_every_place(n):
    for seed in range(5):
        shuffled = derangement(n, seed)
        assert sorted(shuffled.tolist()) == list(range(n))
        assert (shuffled != torch.arange(n)).all()
    assert n < 10 or not torch.equal(derangement(n, 0), derangement(n, 1))


class Identical(PairMetric):
    inputs = "images"

    def match(self, a, b):
        return (a == b).flatten(1).all(1)


def test_further_metrics(images):
    half = images[0].clone()
    half[N // 2 :] = 255 - half[N // 2 :]
    metrics = [Identical(), ReproducibilityScore(0.8)]
    found = compare([Bank.from_images(images[0]), Bank.from_images(half)], "Pixels", metrics=metrics)
    assert found.scores["Identical"].counts.tolist() == [[N, N // 2], [N // 2, N]]
    assert (found.scores["ReproducibilityScore"].counts == found.scores["RP"].counts).all()
    assert (found.scores["ReproducibilityScore"].control == found.scores["RP"].control).all()
    named = compare([Bank.from_images(images[0])] * 2, "Pixels", metrics=["MAEScore"])
    assert (named.scores["MAEScore"].counts == named.scores["MAE"].counts).all()


def test_a_plan_that_is_too_large_is_refused_with_its_number():
    with pytest.raises(UserError) as caught:
        check_size(100, 50_000)
    assert str(caught.value) == (
        "100 systems have 5,050 pairs, on 50,000 images each 252,500,000 outcomes, about 7 GB; at most 200,000,000 "
        "are counted at once: compare at most 39,603 images of each with --seeds, or fewer systems"
    )
    check_size(100, 39_603)
