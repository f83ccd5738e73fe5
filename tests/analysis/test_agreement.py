"""Decisions of two descriptors on the same pairs, against counting by hand and scikit-learn."""

import pytest
import torch
from sklearn.metrics import cohen_kappa_score

from repro.analysis.agreement import agreement, best_threshold, kappa
from repro.analysis.copy_detection import Described, describe_copies
from repro.descriptors.pixels import Pixels
from repro.errors import UserError


def described(name, seed, threshold=0.6, n=40, q=10):
    generator = torch.Generator().manual_seed(seed)
    references = torch.nn.functional.normalize(torch.randn(n, 8, generator=generator), dim=1)
    copies = [
        torch.nn.functional.normalize(references[:q] + scale * torch.randn(q, 8, generator=generator), dim=1)
        for scale in (0.1, 0.5)
    ]
    return Described(name, threshold, references, copies, ["a", "b"], 2.0)


def pairs_by_hand(judge, other):
    """(judge's similarity, other's similarity) of each pair, in the order in which halves are taken."""
    pairs = []
    for edit in range(2):
        pairs += [
            (float(judge.copies[edit][i] @ judge.references[i]), float(other.copies[edit][i] @ other.references[i]))
            for i in range(10)
        ]
    for i in range(40):
        others = [j for j in range(40) if j != i]
        near = max(others, key=lambda j: float(judge.references[i] @ judge.references[j]))
        pairs.append(tuple(float(each.references[i] @ each.references[near]) for each in (judge, other)))
    return pairs


@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.9])
def test_agreement_equals_counting_by_hand(threshold):
    judge, other = described("judge", 0), described("other", 1, threshold)
    found, pairs = agreement(judge, other), pairs_by_hand(judge, other)
    counted = pairs[1::2]
    yes = [first > 0.6 for first, _ in counted]
    assert (found.pairs, found.judged) == (30, sum(yes))
    for limit, agreed, beyond in (
        (threshold, found.agreed, found.kappa),
        (found.best, found.best_agreed, found.best_kappa),
    ):
        said = [second > limit for _, second in counted]
        assert agreed == sum(a == b for a, b in zip(yes, said, strict=True))
        assert beyond == pytest.approx(cohen_kappa_score(yes, said), abs=1e-12)
    chosen = [(first > 0.6, second) for first, second in pairs[::2]]
    most = max(sum((second > limit) == yes for yes, second in chosen) for _, limit in [(0, -2.0), *chosen])
    assert sum((second > found.best) == yes for yes, second in chosen) == most
    row = found.row()
    assert row["agreed_low"] <= row["agreed_rate"] == found.agreed / 30 <= row["agreed_high"]


def test_a_descriptor_agrees_with_itself_at_its_own_threshold():
    judge = described("judge", 0)
    found = agreement(judge, judge)
    assert (found.agreed, found.kappa) == (30, 1.0)
    assert found.best_agreed >= 28


def test_the_best_threshold_lies_in_the_gap_and_ties_are_never_split():
    assert best_threshold(torch.tensor([0.9, 0.1, 0.3]), torch.tensor([True, False, False])) == pytest.approx(0.6)
    all_yes = best_threshold(torch.tensor([0.5, 0.7]), torch.tensor([True, True]))
    assert all_yes < 0.5
    all_no = best_threshold(torch.tensor([0.5, 0.7]), torch.tensor([False, False]))
    assert not (torch.tensor([0.5, 0.7]).double() > all_no).any()
    tied = torch.tensor([0.5, 0.5, 0.5, 0.9])
    limit = best_threshold(tied, torch.tensor([True, False, False, True]))
    assert 0.5 <= limit < 0.9


def test_kappa_of_chance_and_of_one_answer():
    assert kappa(torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])) == 0
    assert kappa(torch.ones(3, dtype=torch.bool), torch.ones(3, dtype=torch.bool)) == 1


def test_time_counts_every_image():
    images = torch.randint(0, 256, (30, 3, 8, 8)).to(torch.uint8)
    found = describe_copies(Pixels(), images, 5, ["blur", "jpeg"])
    assert found.images_per_second == pytest.approx(40 / found.seconds)


def test_other_images_cannot_be_compared():
    with pytest.raises(UserError, match="describe other images"):
        agreement(described("a", 0), described("b", 0, n=30))
