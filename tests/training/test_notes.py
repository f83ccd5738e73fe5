"""Lightning's notes: none of them beside this project's trainer, all of them beside Lightning's own."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest

from repro.training.notes import without_notes

SCRIPT = """
import lightning, repro, sys
from repro.data import Digits
from repro.kernels import EDM
from repro.networks import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers import Heun
from repro.training import Diffusion
module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2))
if sys.argv[1] == "ours":
    repro.Trainer(max_steps=2, default_root_dir="run", accelerator="cpu").fit(module, datamodule=Digits(batch_size=8))
    repro.draw(module.model, "0-3")
else:
    lightning.Trainer(max_steps=2, logger=False, accelerator="cpu").fit(module, datamodule=Digits(batch_size=8))
"""


@pytest.mark.parametrize("trainer", ["ours", "lightning"])
def test_only_lightnings_own_trainer_tells_its_notes(trainer, tmp_path):
    words = [sys.executable, "-c", SCRIPT, trainer]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120)
    assert ("GPU available" in done.stderr) == (trainer == "lightning")
    if trainer == "ours":
        assert (done.stdout, done.stderr) == ("", "")


def test_levels_and_filters_come_back_and_other_warnings_come_through():
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    with without_notes():
        assert not logger.isEnabledFor(logging.INFO)
        assert logger.isEnabledFor(logging.WARNING)
        with pytest.warns(UserWarning, match="of a user"):
            warnings.warn("of a user", UserWarning, stacklevel=1)
    assert (logger.level, list(warnings.filters)) == (level, filters)
