"""The plan of a study: what it trains, draws and measures, as jobs; and handles of what comes out of them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repro.banks import Bank
from repro.checkpoints.loading import load_model
from repro.errors import unknown
from repro.files import make_folder, write_text
from repro.records import nested
from repro.studies.jobs import Job, Size, in_order, with_settings
from repro.studies.scales import Scale

__all__ = ["Drawn", "Measured", "Plan", "Trained", "seeded"]


@dataclass(frozen=True)
class Trained:
    """A training of a plan.

    Attributes:
        name: Of the system.
        run: Its run folder.
        job: Name of the job; None where the run was there before the study.
    """

    name: str
    run: Path
    job: str | None = None

    def load(self) -> Any:
        """Loads the model that was trained."""
        return load_model(self.run)


@dataclass(frozen=True)
class Drawn:
    """A sample bank of a plan.

    Attributes:
        name: Of the system.
        bank: The bank's folder.
        job: Name of the job; None where the bank was there before the study.
    """

    name: str
    bank: Path
    job: str | None = None

    def open(self) -> Bank:
        """Opens the bank."""
        return Bank.open(self.bank)


@dataclass(frozen=True)
class Measured:
    """A measurement of a plan.

    Attributes:
        name: Of the measurement, as in ``--part NAME``.
        json: The file with what it found.
        job: Name of the job.
    """

    name: str
    json: Path
    job: str

    def read(self) -> Any:
        """Reads the result of the measurement, plain data."""
        return json.loads(self.json.read_text(encoding="utf-8"))


def seeded(number: int) -> dict[str, int]:
    """Settings of ``repro fit`` that give starting weights, order of the images and draws a seed of their own."""
    return {"seed_everything": number, "model.seed": number, "data.seed": number}


class Plan:
    """Collects the jobs of one study in one folder.

    Args:
        study: The study's name.
        folder: Its folder.
        scale: How large it is.
        arguments: The study's own options, as plain data; jobs that measure are run under the same.
        over: Settings that win over those of every training, nested as in a config.

    Example:
        >>> from repro.studies import SCALES
        >>> plan = Plan("mine", Path("runs/mine"), SCALES["tiny"])
        >>> trained = plan.fit("mlp", "digits/mlp_edm", {"data.subset": 32})
        >>> plan.draw("mlp", trained).bank.as_posix()
        'runs/mine/banks/mlp'
        >>> [job.name for job in plan.jobs()]
        ['fit_mlp', 'draw_mlp']
    """

    def __init__(
        self,
        study: str,
        folder: Path,
        scale: Scale,
        arguments: Mapping[str, Any] | None = None,
        over: Mapping[str, Any] | None = None,
    ) -> None:
        self.study, self.folder, self.scale = study, folder, scale
        self._arguments, self._over = arguments or {}, over or {}
        self._jobs: dict[str, Job] = {}
        self._measurements: dict[str, tuple[Measured, Callable[[], Any]]] = {}

    def jobs(self) -> list[Job]:
        """Returns all jobs, each after those that it needs, the longest chains first."""
        return in_order(list(self._jobs.values()))

    def fit(
        self,
        name: str,
        configs: str | Sequence[str],
        settings: Mapping[str, Any] | None = None,
        needs: Iterable[Any] = (),
        seconds: float | None = None,
    ) -> Trained:
        """Trains a system.

        Args:
            name: Of the system.
            configs: Name of its config, or several, later ones over earlier ones.
            settings: Further settings by dotted key, for example ``{"data.subset": 32}``. They may name
                other data than the scale's.
            needs: Handles of what it reads.
            seconds: Expected time; by default the scale's.
        """
        run = self.folder / "runs" / name
        chosen = settings or {}
        learned = {} if "data" in chosen else self.scale.data_settings()
        own = {"config": configs if isinstance(configs, str) else [*configs], **nested({**learned, **chosen})}
        checkpoint = run / "checkpoints" / "last.ckpt"
        job = Job(f"fit_{name}", "fit", own, _jobs_of(needs), _sized(self.scale.fit, seconds), checkpoint)
        return Trained(name, run, self._add(with_settings(job, {**self._over, "output": str(run)})))

    def draw(
        self,
        name: str,
        source: Trained | Path | str | None,
        seeds: str | None = None,
        settings: Mapping[str, Any] | None = None,
        seconds: float | None = None,
        needs: Iterable[Any] = (),
        flops: float | None = None,
    ) -> Drawn:
        """Draws a bank.

        Args:
            name: Of the system.
            source: A training of this plan, a run or checkpoint that is there already, or the name of the config of a
                model that needs no training; None where the settings name the model.
            seeds: Which noises, for example ``0-999``; by default the scale's.
            settings: Further settings by dotted key, for example ``{"sampler": "Heun", "sampler.steps": 18}``.
            seconds: Expected time; by default the scale's.
            needs: Handles of what else it reads.
            flops: Its floating-point operations, where the settings do not name the network.
        """
        bank = self.folder / "banks" / name
        if isinstance(source, str):
            model = {"config": source}
        elif source is None:
            model = {}
        else:
            model = {"ckpt_path": str(source.run if isinstance(source, Trained) else source)}
        own = {**model, **nested(settings or {}), "seeds": seeds or self.scale.seeds, "output": str(bank)}
        size = dataclasses.replace(_sized(self.scale.draw, seconds), flops=flops)
        return Drawn(name, bank, self._add(Job(f"draw_{name}", "predict", own, _jobs_of([source, *needs]), size)))

    def measure(self, name: str, function: Callable[..., Any], *inputs: Any, seconds: float | None = None) -> Measured:
        """Measures something in a job of its own, after everything whose handle is among the inputs.

        Args:
            name: Of the measurement.
            function: Called with the inputs; returns plain data.
            inputs: Handles, also in lists and mappings, and plain values.
            seconds: Expected time; by default that of drawing at this scale.
        """
        path = self.folder / "measured" / f"{name}.json"
        own = {"study": self.study, "scale": self.scale.name, "part": name, **self._arguments}
        own |= {} if self.scale.images is None else {"images": self.scale.images}
        own["output"] = str(self.folder)
        job = Job(f"measure_{name}", "study", own, _jobs_of(inputs), _sized(self.scale.draw, seconds))
        handle = Measured(name, path, self._add(job))
        self._measurements[name] = handle, lambda: function(*inputs)
        return handle

    def measure_now(self, name: str) -> Path:
        """Makes one measurement in this process and writes what it finds.

        Raises:
            UserError: the plan has no measurement of that name.
        """
        if name not in self._measurements:
            raise unknown(f"part of {self.study}", name, self._measurements)
        handle, function = self._measurements[name]
        text = json.dumps(function(), indent=1)
        make_folder(handle.json.parent)
        write_text(handle.json, text + "\n")
        return handle.json

    def _add(self, job: Job) -> str:
        if self._jobs.setdefault(job.name, job) != job:
            raise ValueError(f"two different jobs are called {job.name}")
        return job.name


def _sized(size: Size, seconds: float | None) -> Size:
    return size if seconds is None else dataclasses.replace(size, seconds=seconds)


def _jobs_of(inputs: Any) -> tuple[str, ...]:
    """Names of the jobs whose handles are among the inputs, each once."""
    return tuple(dict.fromkeys(_walk(inputs)))


def _walk(value: Any) -> Iterator[str]:
    if isinstance(value, Trained | Drawn | Measured):
        if value.job is not None:
            yield value.job
    elif isinstance(value, Mapping):
        yield from _walk(list(value.values()))
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _walk(each)
