"""Figure 9: large class-conditional models, of latents too, on the same noises and classes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from repro.banks import Bank
from repro.comparison import Comparison, compare
from repro.comparison.figures import matrix
from repro.descriptors.base import Descriptor
from repro.drawing.systems import kind_of
from repro.errors import UserError
from repro.models.pretrained import check_extra
from repro.noise import parse_seeds
from repro.registry import build
from repro.studies import CONDITIONAL_SYSTEMS, SYSTEMS, Drawn, Plan, Report, Study, rate_text, seeded
from repro.studies.by_class import class_chart, class_grid, class_lines, class_rows, means, pair_of
from repro.studies.digit_latents import train_autoencoder
from repro.studies.inputs import named_inputs

__all__ = ["ImageNet"]

_AUTOENCODER = "stabilityai/sd-vae-ft-ema"
_CLASSES = "22,88,207,250,360,387,417,974"
_GUIDANCE = 1.5
_AUTOENCODER_STEPS = 1000
_DECODING = 6.22e11  # operations that decode an image of 256 x 256 pixels


class _Released(NamedTuple):
    """A file of the scale ``paper``.

    Attributes:
        file: Its name.
        latents: Whether it draws latents.
        guided: Whether it can be guided.
        seconds: Time an image.
        forward: Floating-point operations of one evaluation of its network.
        evaluations: Evaluations an image, by the sampler of its format.
    """

    file: str
    latents: bool
    guided: bool
    seconds: float
    forward: float
    evaluations: int

    def flops(self, guidance: float) -> float:
        """Returns the floating-point operations of an image, decoded."""
        return self.evaluations * self.forward * (1 if guidance == 1 else 2) + self.latents * _DECODING


_PAPER = {
    "DiT-XL-2": _Released("DiT-XL-2-256x256.pt", True, True, 6.0, 2.37e11, 20),
    "UViT-H-2": _Released("imagenet256_uvit_huge.pth", True, True, 5.0, 2.66e11, 20),
    "EDM-64": _Released("edm-imagenet-64x64-cond-adm.pkl", False, False, 2.0, 2.19e11, 35),
    "EDM-64-teacher": _Released("edm_imagenet64_ema.pt", False, False, 2.0, 2.19e11, 79),
}
"""Two models of latents of 256 x 256 images, and two ADM U-Nets of 64 x 64 pixels: each two have noise of one shape."""


class _Latent(NamedTuple):
    """A system of the scale ``tiny``: its config, settings, and seconds to train it."""

    config: str
    settings: Mapping[str, Any]
    seconds: float


_DROPPED = {"task": "conditional", "model.network.label_dropout": 0.1}
_TOKENS = {"model.parameterization": "V", "model.network.patch_size": 2, "model.lr": 2e-3, "trainer.max_steps": 1500}
_ADM = {
    "model.network": "ADM",
    "model.network.width": 32,
    "model.network.channel_mult": [1, 1],
    "model.network.num_blocks": 1,
    "model.network.attention_at": [4],
    "model.network.channels_per_head": 16,
    "model.network.dropout": 0.0,
}
_TINY = {
    "DiT": _Latent(SYSTEMS["DiT"].config, _TOKENS, 100),
    "UViT": _Latent(CONDITIONAL_SYSTEMS["UViT-cond"].config, _TOKENS, 100),
    "ADM": _Latent(CONDITIONAL_SYSTEMS["EDM-cond"].config, _ADM, 100),
}


class ImageNet(Study):
    """Conditional RP of class-conditional models on chosen classes: ADM, DiT and U-ViT of latents, or any others.

    Models are compared with those whose images have the same shape. Chance is told by images of the same class and
    other noises. Models of latents and of pixels start from noises of different shapes, which have nothing in common,
    so only models of one kind can be expected to agree.

    Without inputs the models are, at the scale ``paper``, released files by name (DiT-XL/2 and U-ViT-H/2 at 256 x 256,
    two ADM U-Nets at 64 x 64); at ``tiny`` a DiT, a U-ViT and an ADM U-Net of the latents of the 8 x 8 digits, trained
    there and then with label dropout, and decoded. Latents need the extra ``diffusers``.

    Args:
        inputs: Which models instead, two or more, each ``NAME=PATH`` or ``PATH``: a run (``repro import FILE
            --decoder DIR`` makes one of a released file), a checkpoint, a released file, or a bank that is drawn
            already.
        classes: Which classes; by default eight of ImageNet's, and all ten digits at ``tiny``.
        seeds: Which noises; by default 0-99, and 0-199 at ``tiny``.
        guidance: Scale of classifier-free guidance; by default 1.5 for models without inputs that can be guided, and
            1, which is none, with inputs.
        files: Folder of the released files.
        decoder: The autoencoder of the released files of latents: a folder, or a name on the hub of diffusers.
        descriptor: What makes two images alike; by default as for ``repro compare``, pixels for the digits.
        threshold: Similarity above which two images are the same; by default the descriptor's, 0.95 for the digits'
            pixels.
    """

    name: ClassVar[str] = "imagenet"
    figure: ClassVar[str] = "9"
    scales: ClassVar[tuple[str, ...]] = ("tiny", "paper")

    def __init__(
        self,
        inputs: list[str] | None = None,
        classes: str | None = None,
        seeds: str | None = None,
        guidance: float | None = None,
        files: str = "files",
        decoder: str = _AUTOENCODER,
        descriptor: Descriptor | None = None,
        threshold: float | None = None,
    ) -> None:
        if seeds is not None and len(parse_seeds(seeds)) < 2:
            raise UserError(f"seeds are {seeds}; give two noises or more, since chance is told by other noises")
        self.inputs = None if inputs is None else named_inputs(inputs, "models")
        self.classes, self.seeds, self.guidance, self.files, self.decoder = classes, seeds, guidance, files, decoder
        self.descriptor, self.threshold = descriptor, threshold

    def plan(self, plan: Plan) -> dict[str, Drawn]:
        """Trains the models of the scale ``tiny``; draws every model's bank."""
        if self.inputs is not None:
            return {name: self._given(plan, name, path) for name, path in self.inputs.items()}
        check_extra(f"study {self.name} of latents")
        if plan.scale.name == "tiny":
            return self._tiny(plan)
        return {name: self._released(plan, name, each) for name, each in _PAPER.items()}

    def _given(self, plan: Plan, name: str, path: str) -> Drawn:
        kind = kind_of(path)
        if kind == "images":
            raise UserError(f"{path} is neither a run, a checkpoint nor a bank; make a run: repro import FILE")
        if kind == "bank":
            return Drawn(name, Path(path))
        _check_classes(Path(path))
        return self._draw(plan, name, Path(path), {}, self.guidance or 1.0, 1.0)

    def _released(self, plan: Plan, name: str, each: _Released) -> Drawn:
        file = Path(self.files, each.file)
        guidance = (_GUIDANCE if self.guidance is None else self.guidance) if each.guided else 1.0
        if not each.latents:
            return self._draw(plan, name, file, {}, guidance, each.seconds, flops=each.flops(guidance))
        model = {"model": "Decoded", "model.model": str(file), "model.decoder": self.decoder}
        return self._draw(plan, name, None, model, guidance, each.seconds, flops=each.flops(guidance))

    def _tiny(self, plan: Plan) -> dict[str, Drawn]:
        """The three models of latents of digits, and their banks."""
        folder = plan.folder / "made"
        shared = plan.measure("autoencoder", train_autoencoder, folder, _AUTOENCODER_STEPS, seconds=60)
        latents = {"data": "ImageArray", "data.path": str(folder / "latents.npz"), "data.channels": "first"}
        drawn = {}
        for number, (name, each) in enumerate(_TINY.items()):
            settings = {**_DROPPED, **each.settings, **latents, **seeded(number)}
            run = plan.fit(name, [each.config, *plan.scale.overlays], settings, [shared], each.seconds)
            decoder = str(folder / "autoencoder")
            model = {"model": "Decoded", "model.model": str(run.run), "model.decoder": decoder}
            guidance = _GUIDANCE if self.guidance is None else self.guidance
            drawn[name] = self._draw(plan, name, None, model, guidance, 0.01, [run, shared], "0-9", "0-199")
        return drawn

    def _draw(
        self,
        plan: Plan,
        name: str,
        source: Path | None,
        model: Mapping[str, Any],
        guidance: float,
        image_seconds: float,
        needs: Sequence[Any] = (),
        usual_classes: str = _CLASSES,
        usual_seeds: str = "0-99",
        flops: float | None = None,
    ) -> Drawn:
        classes, seeds = self.classes or usual_classes, self.seeds or usual_seeds
        settings = {**model, "task": "conditional", "classes": classes, "guidance": guidance}
        images = len(parse_seeds(seeds)) * len(parse_seeds(classes))
        total = None if flops is None else flops * images
        return plan.draw(name, source, seeds, settings, image_seconds * images, needs, total)

    def report(self, report: Report, parts: dict[str, Drawn]) -> None:
        """Writes conditional RP as text, CSV, PNG and TensorBoard log, for each shape of images."""
        rows: list[dict[str, Any]] = []
        panels = []
        for shape, banks in _by_shape(parts).items():
            size = "x".join(map(str, shape))
            if len(banks) < 2:
                report.text(f"{next(iter(banks))} alone draws images of {size}; it is compared with no other")
                continue
            compared = self._compare(report, banks)
            report.comparison(f"results/{size}", compared)
            classes = class_rows(compared)
            rows += [{**compared.conditions.cells(), "images": size, **row} for row in classes]
            charts = [matrix(compared, compared.scores["RP"]), class_chart(compared, classes)]
            grids = [class_grid(*each) for each in zip(compared.names, compared.banks, strict=True)]
            panels.append([charts, grids])
            report.text(*class_lines(compared, classes), *_kinds(compared), *_gl(compared))
        if not rows:
            raise UserError("no two models draw images of one shape; name others, or decode the latents of both alike")
        report.table("imagenet", rows)
        report.figure(*panels, values={pair_of(row): row["rate"] for row in means(rows)})

    def _compare(self, report: Report, banks: Mapping[str, Bank]) -> Comparison:
        own = self.descriptor is not None or self.threshold is not None
        if self.inputs is None and report.scale.name == "tiny" and not own:
            return report.compare(banks, build("data", "Digits").images())
        return compare(list(banks.values()), self.descriptor, None, self.threshold, names=[*banks])


def _check_classes(path: Path) -> None:
    """Raises UserError where a run's folder says that its model has no classes."""
    status: Any = None
    with suppress(OSError, ValueError):
        status = json.loads((path / "run.json").read_text(encoding="utf-8"))
    if isinstance(status, dict) and status.get("num_classes") == 0:
        raise UserError(f"the model of {path} has no classes; name class-conditional models")


def _by_shape(parts: Mapping[str, Drawn]) -> dict[tuple[int, ...], dict[str, Bank]]:
    """Banks by name, those with images of one shape together.

    Raises:
        UserError: a bank without labels.
    """
    groups: dict[tuple[int, ...], dict[str, Bank]] = {}
    for name, drawn in parts.items():
        bank = drawn.open()
        if bank.labels is None:
            raise UserError(f"{drawn.bank} was drawn without classes; name banks of --task conditional")
        groups.setdefault(tuple(bank.manifest.image_shape), {})[name] = bank
    return groups


def _kinds(compared: Comparison) -> list[str]:
    """A warning where noises of latents are compared with noises of pixels."""
    models = [bank.manifest.model or {} for bank in compared.banks]
    latents = [model.get("name") == "Decoded" for model in models]
    if len(set(latents)) == 1:
        return []
    names = [name for name, is_latent in zip(compared.names, latents, strict=True) if is_latent]
    return [
        "",
        f"{', '.join(names)}: of latents, with noises of another shape than the others', so alike by chance only",
    ]


def _gl(compared: Comparison) -> list[str]:
    known = compared.table("gl")
    return ["", "GL: " + ", ".join(f"{row['system']} {rate_text(row)}" for row in known)] if known else []
