"""Every test draws the same numbers whenever it runs, alone or among others."""

from __future__ import annotations

import pytest
import torch
from fake_plugins import plug_in  # noqa: F401


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
