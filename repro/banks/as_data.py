"""A sample bank as training data: a student of what another model drew."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from repro.banks.bank import Bank
from repro.data.base import ImageData
from repro.data.source import ImageSource
from repro.errors import UserError

__all__ = ["BankImages"]


class BankImages(ImageData):
    """The images of a sample bank, in the order of its seeds; with the labels that they were drawn under, if any.

    Train on other noises than those that models are compared on: draw the bank from other seeds.

    Args:
        path: The bank's folder.
        common: As of every data set.

    Raises:
        UserError: on first use: no bank at ``path``, one that is empty, unfinished or damaged.

    Source: Zhang et al. 2024, arXiv:2310.05264, figure 15.
    """

    def __init__(self, path: str, **common: Any) -> None:
        super().__init__(**common)
        self.path = path

    def open_source(self) -> ImageSource:
        """Opens the bank; its images are read when they are asked for."""
        bank = Bank.open(self.path)
        if not bank.complete:
            total = len(bank.manifest.seeds) * bank.manifest.images_per_seed
            raise UserError(
                f"bank {self.path} is unfinished: {len(bank):,} of {total:,} images; give the repro predict command "
                "that drew it again, it draws what is missing"
            )
        return _BankSource(bank)


class _BankSource(ImageSource):
    def __init__(self, bank: Bank) -> None:
        self.bank, self.image_shape = bank, bank.manifest.image_shape
        self.labels = torch.zeros(len(bank), dtype=torch.int64) if bank.labels is None else bank.labels
        self.class_names = bank.manifest.class_names or tuple(map(str, range(bank.manifest.num_classes)))

    def read(self, indices: NDArray[np.int64]) -> Tensor:
        """Reads them from the bank's files."""
        return self.bank.read(indices)
