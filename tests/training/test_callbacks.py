"""What a training says and logs while nobody looks: lines of progress, scalars, and pictures for every logger."""

from __future__ import annotations

import csv
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger
from modes import network
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from trainings import trainer

from repro.data.digits import Digits
from repro.kernels import EDM
from repro.parameterizations import EDMPreconditioning
from repro.samplers.heun import Heun
from repro.training import Diffusion
from repro.training.callbacks import ProgressLines, SampleGrid


def fit(folder, steps=4, **settings):
    module = Diffusion(network(), EDM(), EDMPreconditioning(), Heun(2))
    trainer(folder, steps, log_every_n_steps=1, **settings).fit(module, datamodule=Digits(batch_size=8, holdout=8))


def test_without_a_terminal_progress_is_lines(tmp_path, capsys):
    fit(tmp_path, steps=5, callbacks=[ProgressLines(seconds=1e-9)])
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    number = r"[\d,.e+-]+"
    pattern = rf"step (\d) of 5 \((\d+)%\), {number} images a second, loss {number}, \d:\d\d:\d\d left"
    matched = [re.fullmatch(pattern, line) for line in told]
    assert all(matched), told
    assert [each.groups() for each in matched] == [(str(i), str(20 * i)) for i in range(1, 6)]


def test_lines_come_by_default_where_there_is_no_terminal_and_not_too_often(tmp_path, capsys):
    fit(tmp_path, enable_progress_bar=True)
    assert not [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]


class _FlowClient:
    def __init__(self):
        self.pictures, self.metrics = [], []

    def log_image(self, run_id, image, key=None, step=None):
        self.pictures.append((run_id, image, key, step))


class _Flow(MLFlowLogger):
    """MLflow's logger without MLflow: what a client would be sent is kept."""

    def __init__(self):
        self.client = _FlowClient()

    experiment = property(lambda self: self.client)
    run_id = property(lambda self: "r1")
    name = version = save_dir = None

    def log_metrics(self, metrics, step=None):
        self.client.metrics.append(metrics)

    def log_hyperparams(self, params):
        pass

    def after_save_checkpoint(self, callback):
        pass

    def finalize(self, status="success"):
        pass


class _Weights(WandbLogger):
    """W&B's logger, whose own ``log_image`` runs, without its service."""

    def __init__(self):
        self.sent = []
        self._prefix, self._log_model, self._wandb_init = "", False, {}

    experiment = property(lambda self: SimpleNamespace(log=self.sent.append))
    name = version = save_dir = None

    def log_hyperparams(self, params):
        pass

    def after_save_checkpoint(self, callback):
        pass

    def finalize(self, status):
        pass


def test_every_logger_that_takes_pictures_gets_the_grid_and_every_one_the_scalars(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Image=lambda picture, **_: picture))
    flow, weights = _Flow(), _Weights()
    board, table = TensorBoardLogger(tmp_path, name=None, version=""), CSVLogger(tmp_path, name=None, version="csv")
    grid = SampleGrid("0-3", every_n_steps=2)
    fit(tmp_path, logger=[board, flow, weights, table], callbacks=[grid], accelerator="cpu")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [each.step for each in events.Images("samples/average")] == [2, 4]
    assert [(key, step) for _, _, key, step in flow.client.pictures] == [("samples/average", 2), ("samples/average", 4)]
    pictures = [each["samples/average"][0] for each in weights.sent if "samples/average" in each]
    for mine, its in zip(pictures, [picture for _, picture, _, _ in flow.client.pictures], strict=True):
        assert (its.dtype, its.ndim, its.shape[2]) == (np.uint8, 3, 3)
        assert np.array_equal(mine, its)
    scalars = {"train/loss", "train/lr", "train/images_per_second"}
    with (tmp_path / "csv" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert scalars <= rows[0].keys()
    assert len([row for row in rows if row["train/loss"]]) == 4
    assert scalars <= {name for each in flow.client.metrics for name in each}
    assert scalars <= {name for each in weights.sent for name in each}
    assert scalars <= set(events.Tags()["scalars"])


@pytest.mark.parametrize("logger", [False, "csv"])
def test_a_logger_without_pictures_is_left_alone(logger, tmp_path):
    fit(tmp_path, logger=CSVLogger(tmp_path) if logger else False, callbacks=[SampleGrid("0-3", every_n_steps=1)])
