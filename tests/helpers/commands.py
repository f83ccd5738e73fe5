"""Commands in this process, in a folder of their own, with what they printed."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass

from repro.cli.main import main

CONFIG = """
model:
  class_path: Diffusion
  init_args:
    network: {class_path: MLP, init_args: {width: 16, depth: 1}}
    kernel: EDM
    parameterization: EDMPreconditioning
    sampler: {class_path: Heun, init_args: {steps: 2}}
data: {class_path: Digits, init_args: {batch_size: 8, subset: 64}}
trainer: {max_steps: 3, accelerator: cpu, enable_progress_bar: false}
"""


@dataclass
class Outcome:
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def mistake(self) -> str:
        """The one line that a user's mistake gives: checked to be one, with exit code 2, and stripped of its start."""
        assert self.code == 2, self
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("repro: error: "), self.err
        assert "Traceback" not in self.err
        return self.err.removeprefix("repro: error: ").rstrip("\n")


Run = Callable[..., Outcome]


def run_here(*words: str) -> Outcome:
    """Runs ``repro WORDS`` in this process."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main([str(word) for word in words])
        except SystemExit as leave:
            code = leave.code or 0
    return Outcome(code, out.getvalue(), err.getvalue())
