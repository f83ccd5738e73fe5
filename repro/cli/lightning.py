"""``repro fit | validate | test | predict``: Lightning's command line over the registered classes."""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning as L
import yaml
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from repro import registry
from repro.checkpoints.loading import load_training
from repro.cli import resume, runs
from repro.cli.messages import one_line
from repro.cli.objects import build, fill, leave_folder_open, put_into_folder, short_names, specs
from repro.cli.parser import Parser, last, split
from repro.cli.quiet import stoppable
from repro.cli.runs import METRICS
from repro.cli.schema import allow, class_of
from repro.data.base import ImageData
from repro.data.recorded import recorded_data
from repro.drawing import draw, launch, score
from repro.errors import UserError
from repro.files import say, write_text
from repro.inverse.problem import Problem
from repro.models.base import Recorded
from repro.training.base import TrainingModule
from repro.training.trainer import Trainer

__all__ = ["CommandLine", "run"]

_SKIPPED = {
    "fit": {"train_dataloaders", "val_dataloaders", "weights_only"},
    "validate": {"dataloaders", "verbose", "weights_only"},
    "test": {"run", "processes", "data"},
    "predict": {"run", "processes"},
}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "fit": Trainer.fit,
    "validate": Trainer.validate,
    "test": score,
    "predict": draw,
}
_OF_PROCESSES = ("accelerator", "devices", "num_nodes", "strategy", "precision")
_CHECKPOINT = {
    "fit": "Go on from this checkpoint: a file, a run's folder, or 'last' for the newest run of this name.",
    "validate": "Checkpoint or run's folder; by default the newest finished run that fits.",
}
_CHECKPOINT["test"] = _CHECKPOINT["predict"] = _CHECKPOINT["validate"]
_WHERE = {
    "Where it runs": {
        "trainer.accelerator": "cpu, gpu, ...; auto takes what is there.",
        "trainer.devices": "How many of them, a list of their numbers, or auto.",
        "trainer.precision": "Such as 32-true, bf16-mixed, 16-mixed, 64-true; 32-true when left out.",
    }
}
_FIRST = {
    "What is trained, on what": {
        "config": "Settings from a file, by name (repro plugins configs) or path; may be repeated, later ones win.",
        "model": "How it is trained.",
        **dict.fromkeys(("model.network", "model.kernel", "model.parameterization", "model.sampler", "task"), ""),
        "data": "The images.",
        **dict.fromkeys(("data.batch_size", "data.holdout"), ""),
    },
    "How long, how fast": {
        **dict.fromkeys(("trainer.max_steps", "model.lr", "model.lr_warmup", "model.ema_halflife"), ""),
        "seed_everything": "Seed of the first weights.",
    },
    **_WHERE,
    "Where it is kept": {
        **dict.fromkeys(("name", "output", "ckpt_path"), ""),
        "trainer.logger": "TensorBoardLogger, CSVLogger, WandbLogger, ... in the run's folder; false for none.",
        "print_config": "",
    },
}
_SEVERAL = ("--reference", "--metric")
_MOST_OTHERS = 3
_NOT_SAVED = ("name", "output", "ckpt_path", "resume", "print_config")


class CommandLine(LightningCLI):
    """One command: parses its options, settles sizes, builds model, data and trainer, and runs.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        arguments: The words after it.
    """

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        self.command = command
        words = split(arguments, _SEVERAL)
        self.words = resume.with_config_of_run(words) if command == "fit" else words
        super().__init__(
            model_class=TrainingModule,
            subclass_mode_model=True,
            datamodule_class=ImageData,
            subclass_mode_data=True,
            trainer_class=Trainer,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs={
                "prog": f"repro {command}",
                "usage": f"repro {command} [options]",
                "description": (_FUNCTIONS[command].__doc__ or "").strip().partition("\n")[0],
                "print_config": None,
                "allow_abbrev": False,
            },
            args=[],
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of trainer, model and data; only ``fit`` must have a model."""
        fits = self.command == "fit"
        untyped = {"logger", "plugins"}
        hidden = {"default_root_dir", "model_registry", "enable_autolog_hparams"}
        parser.add_class_arguments(
            Trainer, "trainer", fail_untyped=False, instantiate=False, sub_configs=True, skip=untyped | hidden
        )
        for name in sorted(untyped):
            hint = inspect.signature(L.Trainer, eval_str=True).parameters[name].annotation
            parser.add_argument(f"--trainer.{name}", type=hint, default=None, help="As lightning.Trainer takes it.")
        parser.add_subclass_arguments((TrainingModule, Recorded), "model", fail_untyped=False, required=fits)
        parser.add_lightning_class_args(ImageData, "data", subclass_mode=True, required=fits)
        if fits:
            task = last(self.words, "--task")
            mode = (registry.load("tasks", task).mode if task else None) or "Diffusion"
            for key, group, name in (("model", "modules", mode), ("data", "data", "Digits")):
                default = registry.load(group, name)
                parser.set_defaults({key: {"class_path": allow(default)}})

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options that only this command has, such as ``--seeds``."""
        skipped = {"model", "datamodule", "ckpt_path"} | _SKIPPED[self.command]
        if self.command in ("test", "predict"):
            self._own = parser.add_function_arguments(
                _FUNCTIONS[self.command], skip=skipped - {"datamodule", "ckpt_path"}
            )
        else:
            self._own = parser.add_method_arguments(Trainer, self.command, skip=skipped)
        parser.add_argument("--ckpt_path", type=str | None, help=_CHECKPOINT[self.command])
        if "task" not in self._own:
            parser.add_argument(
                "--task", type=str | None, help="What the model is for (repro plugins tasks); inferred when left out."
            )
        if self.command == "fit":
            parser.add_argument("--name", type=str | None, help="Name of the run: its folder is runs/NAME.")
            parser.add_argument("--output", type=str | None, help="Folder of the run instead; new, empty, or its own.")
            parser.add_argument(
                "--resume",
                type=Literal["auto", "never"],
                default="auto",
                help="Go on with an unfinished run of the same name and settings (auto), or always start anew (never).",
            )
        parser.add_argument(
            "--print_config", action="store_true", help="Print the settings that result, ready for --config, and exit."
        )
        own = {"Options": dict.fromkeys([*self._own, "ckpt_path"], "")}
        parser.sections = _FIRST if self.command == "fit" else own | _WHERE

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, builds the data, and settles what data and task say about the model."""
        config = parser.parse_command(self.words, _skip_validation=True)
        printing = config.pop("print_config")
        leave_folder_open(config.trainer)
        try:
            parser.validate(config, skip_required=printing)
        except (TypeError, KeyError) as error:
            if not (printing and "arguments are required" in str(error)):
                parser.error(str(error), error)
        seed = config.get("seed_everything")
        if not isinstance(seed, bool | None) and not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is {seed}; give 0 to {2**32 - 1}")
        resume.check_reach(self.words, config.get("model"), config.get("data"))
        self.data: ImageData | None = build(config.data, "data") if config.get("data") else None
        if config.get("model") and self.data is not None:
            config.task = fill(config.model, self.data, config.get("task"))
        self.config = config
        if printing:
            sys.stdout.write(self.dump(skip_validation=True))
            raise SystemExit(0)

    def dump(self, **options: Any) -> str:
        """Returns the resolved settings as YAML that ``--config`` takes, without what belongs to one run only."""
        plain = self.plain(**options)
        for key in _NOT_SAVED if self.command == "fit" else ("ckpt_path",):
            plain.pop(key, None)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)

    def plain(self, **options: Any) -> dict[str, Any]:
        """Returns the resolved settings as plain data, registered classes under their names."""
        return short_names(yaml.safe_load(self.parser.dump(self.config, skip_unset=False, format="yaml", **options)))

    def instantiate_classes(self) -> None:
        """Builds what the command needs and runs it."""
        getattr(self, f"_{self.command}")()

    def _settings(self, root: Path | None = None) -> dict[str, Any]:
        """The trainer's arguments, its callbacks and loggers built; these write into ``root``.

        Raises:
            UserError: one of them refuses its arguments, or a package that it needs is not installed.
        """
        trainer = self.config.trainer.clone()
        put_into_folder(trainer, root or Path("."))
        try:
            return self.parser.instantiate(Namespace(trainer=trainer)).trainer.as_dict()
        except (ImportError, LookupError, TypeError, ValueError) as error:
            raise one_line(self.parser, str(error)) from error

    def _make_trainer(self, root: Path | None) -> Trainer:
        settings = self._settings(root)
        if self.command != "fit" and settings.get("logger") is None:
            settings["logger"] = False
        with stoppable():
            return Trainer(**settings, default_root_dir=root)

    def _fit(self) -> None:
        config, chosen = self.config, class_of(self.config.model.class_path)
        if issubclass(chosen, Recorded):
            name = chosen.__name__
            raise UserError(f"{name} has nothing to train; draw from it: repro predict --model {name}")
        if not registry.load("tasks", config.task).trains:
            raise UserError(
                f"no model is trained for --task {config.task}; train an unconditional one, then "
                f"repro test --task {config.task}"
            )
        data = self.data
        assert data is not None, "the parser asks fit for data"
        len(data)  # a set that cannot be read, or is too small, is told before a folder is made
        model, most, output = build(config.model, "model"), config.trainer.max_steps, config.output
        if most == 0:
            raise UserError("trainer.max_steps is 0, which trains nothing; give at least 1, or -1 for no end")
        start = resume.checkpoint_of(config.ckpt_path, self._name()) if config.ckpt_path else None
        if start is None and config.resume == "auto":
            folder = self._begun()
            if folder is not None and runs.status_of(folder).get("finished"):
                self._print(f"{folder} is finished: it has these settings; to train another one, type --resume never")
                return
            if folder is not None:
                start, output = resume.newest_in(folder), str(folder)
        if start is not None:
            done = resume.check(start, model, data, self.plain())
            if 0 <= most <= done:
                self._print(f"{start} has {done} steps already; to go on, type --trainer.max_steps {2 * done}")
                return
        trainer: Trainer | None = None

        def unused() -> bool:
            return trainer is None or trainer.global_step == 0

        with runs.run_folder(start, self._name(), output, unused) as folder:
            trainer = self._make_trainer(folder)
            data.check_ranks(trainer.world_size)  # before as many processes are started
            if rank_zero_only.rank == 0:
                write_text(folder / "config.yaml", self.dump())
                runs.keep_metrics(folder)
                self._print(self._about(model, data, folder))
            with stoppable(lambda: self._how_to_go_on(folder)):
                trainer.fit(model, datamodule=data, ckpt_path=start, weights_only=True)
        self._print(
            f"run: {folder}",
            f"next: {model.model.next_command.format(run=folder)}",
            *self._curves(trainer, folder),
        )

    @staticmethod
    def _curves(trainer: Trainer, folder: Path) -> list[str]:
        """How to see what was logged, where that is in the run's folder."""
        kinds, lines = [type(logger) for logger in trainer.loggers], []
        if TensorBoardLogger in kinds:
            lines.append(f"curves: tensorboard --logdir {folder.parent}")
        if CSVLogger in kinds and (folder / METRICS).is_file():
            lines.append(f"curves: {folder / METRICS}")
        return lines

    def _begun(self) -> Path | None:
        """The run that this very command began before; where there is only one of other settings, says what differs."""
        folder, unlike = resume.run_of_same_settings(self._name(), self.config.output, self.plain())
        if folder is not None and (rank_zero_only.rank or not runs.is_held(folder)):
            return folder
        if unlike and not self.config.output:
            first = list(unlike.items())[:_MOST_OTHERS]
            what = "; ".join(f"{key} was {old}, is now {new}" for key, (old, new) in first)
            self._note(f"a run of this name has other settings ({what}); this is a new one")
        return None

    @staticmethod
    @rank_zero_only
    def _note(text: str) -> None:
        say(f"repro: {text}", aside=True)

    @staticmethod
    def _how_to_go_on(folder: Path) -> str:
        if rank_zero_only.rank:
            return ""  # the first process writes checkpoints and says so
        saved = any(folder.glob("checkpoints/*.ckpt"))
        return f"go on with: repro fit --ckpt_path {folder}" if saved else "there was no checkpoint yet"

    def _about(self, model: TrainingModule, data: ImageData, folder: Path) -> str:
        nested = [(where, spec["class_path"]) for where, spec in specs(self.config.model, "")]
        parts = ", ".join(path.rpartition(".")[2] for where, path in nested if where.count(".") == 1)
        name = f"{type(model).__name__} ({parts})" if parts else type(model).__name__
        count = sum(p.numel() for p in model.parameters() if p.requires_grad)
        shape = "x".join(str(size) for size in data.image_shape)
        classes = f" ({data.class_line()})" if data.num_classes else ""
        return (
            f"{name}, {count:,} parameters, on {len(data):,} images {shape} of "
            f"{type(data).__name__}{classes}, {self.config.trainer.max_steps:,} steps, in {folder}"
        )

    def _name(self) -> str:
        configs = [word.value for word in self.words if word.option == "--config" and word.value]
        return runs.name_of(self.config.get("name"), configs, self.plain(skip_validation=True))

    def _validate(self) -> None:
        module = load_training(self._checkpoint())
        data = self.data
        if data is None:
            if module.model.data_record is None:
                raise UserError("the checkpoint does not say what it was trained on; name the data: --data NAME")
            data = recorded_data(module.model.data_record, "the checkpoint", "--data")
        if not data.holdout:
            raise UserError("no image was held out of training to validate on; type --data NAME --data.holdout N")
        if tuple(data.image_shape) != tuple(module.image_shape):
            there, here = ("x".join(map(str, each.image_shape)) for each in (module, data))
            raise UserError(f"the model is for images {there}, {type(data).__name__} has {here}; name other --data")
        with stoppable():
            scores = self._make_trainer(None).validate(module, datamodule=data, verbose=False)
        self._print(*(f"{name}: {value:.6g}" for each in scores for name, value in each.items()))

    def _test(self) -> None:
        scores = self._draw(data=self.data)
        lines, chances = [], scores.chances()
        for name, value, interval, count in scores.table():
            within = f"  95 % interval {interval[0]:.4f}-{interval[1]:.4f}, n = {count:,}" if interval else ""
            chance = f", chance {chances[name]:.4f}" if name in chances else ""
            lines.append(f"{name}: {value:.4f}{within}{chance}")
        if scores.warning is not None:
            lines.append(f"warning: {scores.warning}")
        if scores.written is not None:
            lines.append(f"scores: {scores.written}")
        if scores.picture is not None:
            lines.append(f"picture: {scores.picture}")
        self._print(*lines)

    def _predict(self) -> None:
        bank = self._draw()
        self._print(f"bank: {bank.path}", f"next: repro compare {bank.path} OTHER")

    def _draw(self, **more: Any) -> Any:
        """Draws or scores the model of a checkpoint, or one that needs no training."""
        own = {name: build(self.config[name], name) for name in self._own}
        if own["problem"] is not None:
            own["problem"] = Problem(**own["problem"])
        chosen = self.config.get("model")
        if chosen and not self.config.ckpt_path and issubclass(class_of(chosen.class_path), Recorded):
            own["model"], own["run"] = build(chosen, "model"), runs.RUNS / self._name()
        else:
            checkpoint = self._checkpoint()
            own["model"] = str(checkpoint)
            if not self.config.ckpt_path and "reference" in own and not own["reference"]:
                own["reference"] = self._others(checkpoint)
        draws, settings = self.command == "predict", self._settings()
        with stoppable(lambda: "the same command goes on where this one stopped" if draws else ""):
            together = launch(**{name: settings[name] for name in _OF_PROCESSES})
            return _FUNCTIONS[self.command](**own, **more, processes=together)

    def _checkpoint(self) -> Path:
        """The checkpoint to use: the one given, or that of the newest finished run that fits the settings."""
        model = self.plain(skip_validation=True).get("model")
        if self.config.ckpt_path:
            return resume.checkpoint_that_fits(self.config.ckpt_path, model)
        folder = next(resume.runs_that_fit(model, self.config.get("task")), None)
        if folder is None:
            config = last(self.words, "--config") or "NAME"
            raise UserError(
                f"no finished run in {runs.RUNS}/ fits; train one: repro fit --config {config}, "
                "or name a checkpoint: --ckpt_path FILE"
            )
        self._note(f"using {folder}, the newest finished run that fits")
        return folder

    def _others(self, chosen: Path) -> list[str]:
        """What an inverse task compares the chosen run with: the other runs on its data, the newest few."""
        task = self.config.get("task")
        if task is None or registry.load("tasks", task).trains:
            return []
        others = [str(path) for path in itertools.islice(resume.runs_that_fit(None, task, chosen), _MOST_OTHERS)]
        if others:
            self._note(f"comparing with {', '.join(others)}, trained on the same data")
        return others

    @staticmethod
    @rank_zero_only
    def _print(*lines: str) -> None:
        say(*lines)


def run(command: str, arguments: list[str]) -> int:
    """Runs ``fit``, ``validate``, ``test`` or ``predict``.

    Args:
        command: Which of them.
        arguments: The words after it.

    Raises:
        UserError: whatever the user can mend.
    """
    CommandLine(command, arguments)
    return 0
