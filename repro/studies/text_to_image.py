"""Figure 20: what text-to-image pipelines draw from the same noises under one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from repro.comparison import Comparison, PairCounts, compare
from repro.comparison.results import counted
from repro.descriptors.base import Descriptor
from repro.errors import UserError
from repro.models.pretrained import check_extra
from repro.noise import parse_seeds
from repro.plots import curve_chart, heat_map, image_grid
from repro.studies import Drawn, Measured, Plan, Report, Study, controls_of, rate_text
from repro.studies.digit_latents import train_autoencoder
from repro.studies.digit_pipelines import DIGIT_PROMPT, train_pipeline
from repro.studies.inputs import named_inputs

__all__ = ["TextToImagePrompt"]

_PROMPT = "a photograph of an astronaut riding a horse"
_PAPER = {f"v1-{version}": f"CompVis/stable-diffusion-v1-{version}" for version in (1, 2, 3, 4)}
_PAPER_THRESHOLD = 0.4
# Floating-point operations of a pipeline of the scale paper: one evaluation of its network, one image decoded.
_FORWARD, _DECODING = 8.03e11, 2.52e12
_GRID_ROWS = 8


class _Made(NamedTuple):
    """A pipeline of the scale ``tiny``: its third of the digits, the pipeline that it goes on from, its steps."""

    third: int
    start: str | None
    steps: int


_TINY = {
    "v1-1": _Made(0, None, 1200),
    "v1-2": _Made(1, "v1-1", 600),
    "v1-3": _Made(2, "v1-2", 600),
    "v1-4": _Made(2, "v1-2", 600),
}
_AUTOENCODER_STEPS = 1000
_STEP_SECONDS = 0.08


class _Size(NamedTuple):
    """Defaults of a scale: prompt, noises, sampler steps, scale of guidance, seconds an image."""

    prompt: str
    seeds: str
    steps: int
    guidance: float
    image_seconds: float


_SIZES = {
    "tiny": _Size(DIGIT_PROMPT, "0-499", 20, 2.0, 0.06),
    "paper": _Size(_PROMPT, "0-999", 50, 7.5, 4.0),
}


class TextToImagePrompt(Study):
    """RP of Stable Diffusion pipelines under one prompt, beside other noises under the same prompt.

    Without inputs the pipelines are, at the scale ``paper``, Stable Diffusion v1-1 to v1-4 by their names on the hub;
    at ``tiny`` four pipelines on the latents of the 8 x 8 digits that are trained there and then and descend from one
    another as those four do: v1-1, v1-2 and v1-3 see a third of the digits each, v1-4 the same as v1-3; v1-2 goes on
    from v1-1, v1-3 and v1-4 from v1-2. Chance is told by images of the same prompt and other noises, since two images
    of one prompt may be alike whatever their noises. Needs the extra ``diffusers``.

    Args:
        inputs: Which pipelines instead, two or more: ``NAME=FOLDER`` or ``FOLDER`` in the layout of diffusers, or a
            name on its hub.
        prompt: The prompt; by default the paper's, and at ``tiny`` one that the pipelines there know.
        seeds: Which noises; by default 0-999 as in the paper, 0-499 at ``tiny``.
        scheduler: ``DDIM``, ``DPMSolver`` or ``own``, as of the model ``TextToImage``.
        steps: Steps of the scheduler; by default 50, 20 at ``tiny``.
        guidance: Scale of classifier-free guidance; by default 7.5, 2 at ``tiny``.
        descriptor: What makes two images alike; by default as for ``repro compare``, pixels for the digits of ``tiny``.
        threshold: Similarity above which two images are the same; by default 0.4 as in the paper, 0.95 for the digits'
            pixels. The table has 0.4 in any case.
    """

    name: ClassVar[str] = "text_to_image"
    figure: ClassVar[str] = "20"
    scales: ClassVar[tuple[str, ...]] = ("tiny", "paper")

    def __init__(
        self,
        inputs: list[str] | None = None,
        prompt: str | None = None,
        seeds: str | None = None,
        scheduler: str = "DDIM",
        steps: int | None = None,
        guidance: float | None = None,
        descriptor: Descriptor | None = None,
        threshold: float | None = None,
    ) -> None:
        if seeds is not None and len(parse_seeds(seeds)) < 2:
            raise UserError(f"seeds are {seeds}; give two noises or more, since chance is told by other noises")
        self.inputs = None if inputs is None else named_inputs(inputs, "pipelines")
        self.prompt, self.seeds, self.scheduler, self.steps, self.guidance = prompt, seeds, scheduler, steps, guidance
        self.descriptor, self.threshold = descriptor, threshold

    def plan(self, plan: Plan) -> dict[str, Drawn]:
        """Trains the pipelines of the scale ``tiny``; draws the bank of each pipeline."""
        check_extra(f"study {self.name}")
        if self.inputs is not None:
            return {name: self._drawn(plan, name, path) for name, path in self.inputs.items()}
        if plan.scale.name != "tiny":
            return {name: self._drawn(plan, name, path, known=True) for name, path in _PAPER.items()}
        return {name: self._drawn(plan, name, *made) for name, made in _tiny_pipelines(plan).items()}

    def _drawn(self, plan: Plan, name: str, pipeline: str, made: Measured | None = None, known: bool = False) -> Drawn:
        size = _SIZES["tiny" if made is not None else "paper"]
        seeds = self.seeds or size.seeds
        steps = self.steps or size.steps
        settings = {
            "model": "TextToImage",
            "model.pipeline": pipeline,
            "model.prompt": self.prompt or size.prompt,
            "model.scheduler": self.scheduler,
            "model.steps": steps,
            "model.guidance": size.guidance if self.guidance is None else self.guidance,
        }
        count, passes = len(parse_seeds(seeds)), 1 if settings["model.guidance"] == 1 else 2
        flops = count * (steps * passes * _FORWARD + _DECODING) if known else None
        seconds = size.image_seconds * count
        return plan.draw(name, None, seeds, settings, seconds, [] if made is None else [made], flops)

    def report(self, report: Report, parts: dict[str, Drawn]) -> None:
        """Writes RP of every pair and on other noises as text, CSV, PNG and TensorBoard log, with curves and images."""
        compared = self._compare(report, parts)
        report.comparison("results", compared)
        score = compared.scores["RP"]
        rows = [{**compared.conditions.cells(), **row} for row in _rows(compared, score)]
        report.table("text_to_image", rows)
        own = [row for row in rows if row["threshold"] == score.threshold]
        values = {f"{row['first']} - {row['second']}": row["rate"] for row in own}
        report.figure([_charts(compared, score), [_grid(compared)]], values=values)
        report.text(*_lines(compared, rows))

    def _compare(self, report: Report, parts: dict[str, Drawn]) -> Comparison:
        own = self.descriptor is not None or self.threshold is not None
        if self.inputs is None and report.scale.name == "tiny" and not own:
            return report.compare(parts)
        threshold = _PAPER_THRESHOLD if self.threshold is None else self.threshold
        return compare([drawn.bank for drawn in parts.values()], self.descriptor, None, threshold, names=[*parts])


def _tiny_pipelines(plan: Plan) -> dict[str, tuple[str, Measured]]:
    """The four pipelines of the digits: folder, and the job that trains it."""
    shared = plan.measure("autoencoder", train_autoencoder, plan.folder / "made", _AUTOENCODER_STEPS, seconds=60)
    made: dict[str, tuple[str, Measured]] = {}
    for number, (name, each) in enumerate(_TINY.items()):
        start = None if each.start is None else made[each.start][1]
        folder, seconds = plan.folder / "made" / name, _STEP_SECONDS * each.steps
        made[name] = str(folder), plan.measure(name, _pipeline, folder, shared, each, number, start, seconds=seconds)
    return made


def _pipeline(folder: Path, shared: Measured, made: _Made, seed: int, start: Measured | None) -> Mapping[str, Any]:
    parts = shared.read()
    first = None if start is None else start.read()["pipeline"]
    return train_pipeline(folder, parts["autoencoder"], parts["latents"], made.third, seed, made.steps, first)


def _rows(compared: Comparison, score: PairCounts) -> Iterator[dict[str, Any]]:
    """A row a pair and threshold, the comparison's own and the paper's: rate and interval, also on other noises."""
    for threshold in dict.fromkeys((compared.threshold, _PAPER_THRESHOLD)):
        for first, second in score.pairs():
            outcome, n = score.outcomes[first, second], int(score.totals[first, second])
            row = {"threshold": threshold, "first": compared.names[first], "second": compared.names[second]}
            for values, prefix in ((outcome.values, ""), (outcome.control_values, "control_")):
                if values is not None:
                    row |= counted(int(np.sum(values > threshold)), n, prefix, compared.conditions.confidence)
            yield row


def _charts(compared: Comparison, score: PairCounts) -> list[Figure]:
    """RP of every pair, that on other noises below the diagonal; and both over the threshold."""
    about = f"{compared.descriptor['name']} > {compared.threshold:g}, n = {compared.n:,}, one prompt"
    pairs = score.pairs()
    names = [f"{compared.names[i]} - {compared.names[j]}" for i, j in pairs]
    rates, controls = ([score.curve(*pair, control=c) / score.totals[pair] for pair in pairs] for c in (False, True))
    return [
        heat_map(
            score.rates,
            compared.names,
            "Same noise and prompt, same image",
            f"{about}; below the diagonal: other noises",
            controls_of(score),
        ),
        curve_chart(
            score.thresholds(),
            rates,
            names,
            "The same by threshold",
            f"n = {compared.n:,}, one prompt; grey: other noises",
            controls,
            score.threshold,
        ),
    ]


def _grid(compared: Comparison) -> Figure:
    images = torch.stack([bank.images[:_GRID_ROWS] for bank in compared.banks], dim=1)
    noises = [f"noise {seed}" for seed in compared.banks[0].seeds[:_GRID_ROWS].tolist()]
    prompt = compared.banks[0].manifest.extra["prompt"]
    return image_grid(images, compared.names, noises, "What each pipeline draws", f"{prompt!r}; one row a noise")


def _lines(compared: Comparison, rows: list[dict[str, Any]]) -> Iterator[str]:
    prompt = compared.banks[0].manifest.extra["prompt"]
    yield f"Same noise and prompt, same image: {prompt!r}, {compared.n:,} noises;"
    yield "in brackets Wilson 95 % intervals; control: other noises, same prompt"
    for threshold in dict.fromkeys(row["threshold"] for row in rows):
        yield ""
        yield f"RP, {compared.descriptor['name']} > {threshold:g}"
        for row in rows:
            if row["threshold"] == threshold:
                control = rate_text(row, "control_rate", "control_low", "control_high")
                yield f"  {row['first']} - {row['second']}: {rate_text(row)}, control {control}"
