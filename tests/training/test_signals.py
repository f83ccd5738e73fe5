"""A signal ends the running step, saves it, and gives the exit code that a shell expects; the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import lightning as L
import pytest
import torch
from trainings import assert_equal, state, trainer

from repro.checkpoints.native import read_checkpoint
from repro.data.digits import Digits
from repro.errors import UserError
from repro.kernels import EDM
from repro.networks.mlp import MLP
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.training.callbacks import RunCheckpoint
from repro.training.diffusion import Diffusion
from repro.training.signals import Interrupted, hold, owned, pending, release

_SETTINGS = (
    "fit --config digits/mlp_edm --model.network.width 8 --data.batch_size 8 --trainer.logger false "
    "--trainer.enable_progress_bar false --trainer.accelerator cpu --output run --trainer.max_steps"
)
FIT = _SETTINGS.split()


def start(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    code = "import sys; from repro.cli.main import main; sys.exit(main(sys.argv[1:]))"
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, env=environment, text=True, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def wait_for(test, process, seconds=120):
    end = time.monotonic() + seconds
    while not test():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.05)


def test_fit_stops_at_a_step_and_the_same_command_goes_on_to_the_same_weights(tmp_path):
    begun = tmp_path / "run" / "config.yaml"
    process = start(tmp_path, *FIT, "4000")
    wait_for(begun.is_file, process)
    time.sleep(2)
    process.send_signal(signal.SIGTERM)
    error = process.communicate(timeout=120)[1]
    assert (process.returncode, "repro: stopped by SIGTERM" in error) == (143, True), error
    status = json.loads((tmp_path / "run" / "run.json").read_text())
    assert not status["finished"]
    assert 0 < status["step"] < 4000
    more = status["step"] + 40
    config = begun.read_text().replace("max_steps: 4000", f"max_steps: {more}")
    begun.write_text(config)
    again = start(tmp_path, *FIT, str(more))
    assert again.wait(timeout=240) == 0, again.stderr.read()
    whole = start(tmp_path, *FIT, str(more), "--output", "whole")
    assert whole.wait(timeout=240) == 0, whole.stderr.read()
    assert_equal(state(tmp_path / "run"), state(tmp_path / "whole"))
    third = start(tmp_path, *FIT, str(more))
    assert "run is finished" in third.communicate(timeout=120)[0]
    assert third.returncode == 0


@pytest.fixture(autouse=True)
def in_the_foreground():
    """A shell lets its background jobs ignore SIGINT, and what is ignored stays so."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)])
def test_a_signal_that_nobody_holds_stops_where_the_program_is(number, code):
    def wait():
        with owned():
            os.kill(os.getpid(), number)
            time.sleep(1)

    with pytest.raises(Interrupted) as stop:
        wait()
    assert (stop.value.number, stop.value.code) == (number, code)


def test_a_held_signal_waits():
    before = signal.getsignal(signal.SIGTERM)
    with owned():
        hold()
        assert pending() is None
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert pending() == signal.SIGTERM
        release()
        assert pending() is None
    assert signal.getsignal(signal.SIGTERM) is before


def test_nobody_else_is_disturbed_outside_of_the_command_line():
    before = signal.getsignal(signal.SIGTERM)
    hold()
    assert signal.getsignal(signal.SIGTERM) is before
    release()


class Spoil(L.Callback):
    """Puts a NaN among the weights after the fifth step."""

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.global_step == 5:
            with torch.no_grad():
                next(pl_module.trained.parameters()).view(-1)[0] = torch.nan


def test_a_diverged_training_keeps_the_newest_finite_checkpoint(tmp_path):
    module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2))
    run = trainer(tmp_path, 9, callbacks=[Spoil(), RunCheckpoint(every_n_steps=2)])
    with pytest.raises(UserError, match=r"the training has diverged: .* checkpoint before that is kept"):
        run.fit(module, datamodule=Digits(batch_size=8))
    assert read_checkpoint(tmp_path)["global_step"] == 4


class Fail(L.Callback):
    """Breaks off in the middle of the step after the fifth."""

    def on_before_backward(self, trainer, pl_module, loss):
        if trainer.global_step == 5:
            raise OSError("the images cannot be read on")


def test_an_exception_leaves_the_state_after_the_last_whole_step_to_go_on_from(tmp_path):
    def fit(name, *callbacks, **options):
        torch.manual_seed(0)
        module = Diffusion(MLP(8, 1, width=8, depth=1), EDM(), EDMPreconditioning(), Heun(2))
        run = trainer(tmp_path / name, 9, callbacks=[*callbacks, RunCheckpoint()])
        run.fit(module, datamodule=Digits(batch_size=8), **options)

    with pytest.raises(OSError, match="cannot be read on"):
        fit("run", Fail())
    assert read_checkpoint(tmp_path / "run")["global_step"] == 5
    fit("run", ckpt_path=tmp_path / "run" / "checkpoints" / "last.ckpt")
    fit("whole")
    assert_equal(state(tmp_path / "run"), state(tmp_path / "whole"))
