"""The MAE score equals a slow loop, ties included."""

import numpy as np
import torch
from noisy_images import random_images

from repro.metrics import functional
from repro.metrics.functional.mae import absolute_difference_matrix


def test_mae_equals_a_slow_loop_with_ties():
    a = random_images(40, 3, 5, 4)
    b = (a.int() + torch.arange(40).view(-1, 1, 1, 1) - 20).clamp(0, 255).to(torch.uint8)
    b[7] = torch.where(a[7] < 128, a[7] + 15, a[7] - 15)
    assert np.abs(a[7].numpy().astype(int) - b[7].numpy().astype(int)).mean() == 15
    means = [np.abs(x.numpy().astype(float) - y.numpy().astype(float)).mean() for x, y in zip(a, b, strict=True)]
    for threshold in (0.0, 3.3, 15.0, 255.0):
        expected = [mean < threshold for mean in means]
        assert functional.mae_matches(a, b, threshold).tolist() == expected
    assert not functional.mae_matches(a, b)[7]


def test_mae_of_the_largest_difference():
    black = torch.zeros(2, 3, 300, 300, dtype=torch.uint8)
    assert functional.mae_score(black, 255 - black, 255.0) == 0
    assert absolute_difference_matrix(torch.stack([black, 255 - black], 1).flatten(2))[0].tolist() == [
        [0, 255],
        [255, 0],
    ]
