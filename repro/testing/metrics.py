"""Laws that every score obeys; a package that registers a pair metric runs them on it too."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import tempfile
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing import start_processes
from torchmetrics import Metric

from repro.errors import UserError
from repro.metrics.base import CountMetric, PairMetric, RateMetric
from repro.metrics.distances import SetMetric
from repro.testing.devices import FakeDevice, Waits

__all__ = [
    "check_batches",
    "check_conflict",
    "check_device",
    "check_lifecycle",
    "check_pair_metric",
    "check_processes",
    "check_seeds",
    "check_set_metric",
    "check_symmetry",
    "pair_inputs",
]

_SAMPLES = 37


def check_pair_metric(metric: PairMetric, image_shape: tuple[int, int, int] = (1, 8, 8)) -> None:
    """Runs every law on a pair metric but :func:`check_processes`, which starts processes and is run by itself.

    Args:
        metric: As built by name; it is not changed.
        image_shape: (C, H, W) of images that it can take.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    a, b = pair_inputs(metric, image_shape)
    check_symmetry(metric, a, b)
    for law in (check_batches, check_seeds, check_conflict, check_lifecycle):
        law(metric, (a, b))
    check_device(metric, (a, b), waits=None)


def pair_inputs(metric: PairMetric, image_shape: tuple[int, int, int] = (1, 8, 8)) -> tuple[Tensor, Tensor]:
    """Inputs of two models on the same noises, from the very same to unrelated ones, in the kind that it takes."""
    generator = torch.Generator().manual_seed(0)
    amount = torch.linspace(0, 1, _SAMPLES).view(-1, *[1] * (3 if metric.inputs == "images" else 1))
    if metric.inputs == "images":
        base, other = torch.randint(0, 256, (2, _SAMPLES, *image_shape), generator=generator)
        return base.to(torch.uint8), (base + amount * (other - base)).to(torch.uint8)
    base, other = torch.randn(2, _SAMPLES, 16, generator=generator)
    return base, base + amount * (other - base)


def check_symmetry(metric: PairMetric, a: Tensor, b: Tensor) -> None:
    """Checks that two models are as alike as the same two named in the other order."""
    forth, back = metric.match(a, b), metric.match(b, a)
    assert forth.shape == (len(a),), f"match gives shape {tuple(forth.shape)} for {len(a)} pairs"
    assert forth.dtype == torch.bool, f"match gives {forth.dtype}, not bool"
    assert torch.equal(forth, back), f"pairs {(forth != back).nonzero().flatten().tolist()} match in one order only"


def check_batches(metric: CountMetric, inputs: Sequence[Tensor]) -> None:
    """The counts do not depend on the batches, and the value of a batch is the value of its samples alone."""
    whole = _counts(metric, inputs)
    for size in (1, 5, 36):
        batched = metric.clone()
        for start in range(0, len(inputs[0]), size):
            batch = [item[start : start + size] for item in inputs]
            value = batched(*batch)
            alone = _filled(metric, batch)
            assert _same(value, alone.compute()), f"forward gives {value} on a batch whose counts are {alone.counts()}"
        counts = _plain(batched.counts())
        assert counts == whole, f"batches of {size} count {counts}, one batch {whole}"
        assert _same(batched.compute(), _filled(metric, inputs).compute()), f"batches of {size} change the value"
        if isinstance(metric, RateMetric):
            assert float(batched.compute()) == whole[0] / whole[1], "compute is not the ratio of the counts"


def check_seeds(metric: CountMetric, inputs: Sequence[Tensor]) -> None:
    """Checks that every seed counts once, however often and in whatever order it comes."""
    whole = _counts(metric, inputs)
    count = len(inputs[0])
    order = torch.randperm(3 * count, generator=torch.Generator().manual_seed(1)) % count
    repeated = metric.clone()
    for part in order.split(11):
        repeated.update(*[item[part] for item in inputs], seeds=part + 100)
    counts = _plain(repeated.counts())
    assert counts == whole, f"with every seed three times it counts {counts}, once {whole}"


def check_conflict(metric: CountMetric, inputs: Sequence[Tensor]) -> None:
    """Checks that one seed with two outcomes is an error, never a silent choice."""
    alone = [_counts(metric, [item[row : row + 1] for item in inputs]) for row in range(len(inputs[0]))]
    torn_apart = [row for row, (hits, total) in enumerate(alone) if total == alone[0][1] and hits != alone[0][0]]
    assert torn_apart, "the inputs have one outcome only; this law needs two"
    pair = torch.tensor([0, torn_apart[0]])
    torn = metric.clone()
    torn.update(*[item[pair] for item in inputs], seeds=[7, 7])
    _expect_seed(torn)


def check_lifecycle(metric: CountMetric, inputs: Sequence[Tensor]) -> None:
    """Checks clone, pickle and reset: integer states, nothing in the state dict and no parameter."""
    whole = _counts(metric, inputs)
    filled = metric.clone()
    filled.update(*inputs, seeds=range(len(inputs[0])))
    for copy in (filled.clone(), pickle.loads(pickle.dumps(filled))):
        counted = _plain(copy.counts())
        assert counted == whole, f"a copy counts {counted}, the original {whole}"
    hits, total = (torch.as_tensor(counts, dtype=torch.float64) for counts in whole)
    low, high = filled.intervals().unbind(-1)
    rates = (hits / total)[(hits * 0 + total) > 0]
    low, high = low[(hits * 0 + total) > 0], high[(hits * 0 + total) > 0]
    assert ((low >= 0) & (low <= rates) & (rates <= high) & (high <= 1)).all(), f"intervals {low}, {high} of {whole}"
    for name, state in filled.metric_state.items():
        for tensor in state if isinstance(state, list) else [state]:
            assert tensor.dtype == torch.int64, f"state {name} is {tensor.dtype}, not int64"
    assert not filled.state_dict(), f"the state dict holds {list(filled.state_dict())}"
    assert not list(filled.parameters()), "a metric has no parameters"
    filled.reset()
    filled.update(*[item[:1] for item in inputs], seeds=[0])
    counted, alone = _plain(filled.counts()), _counts(metric, [item[:1] for item in inputs])
    assert counted == alone, f"after a reset one sample counts {counted}, alone {alone}: something was left behind"


def check_processes(metrics: Mapping[str, tuple[Metric, Sequence[Tensor]]], world_size: int) -> None:
    """Checks that 1 and several real processes count the same integers.

    Each metric sees its inputs in four ways: split by Lightning's padded distributed sampler, split unevenly, and all
    on one process, each with seeds; and split unevenly without seeds.

    Args:
        metrics: Metric and the arguments of its update, by name; all can be pickled.
        world_size: Number of processes, at least 2.

    Raises:
        AssertionError: counts differ, or the processes were not that many.
    """
    assert world_size > 1, "one process proves nothing"
    with tempfile.TemporaryDirectory() as folder:
        plain = {name: (metric, list(inputs)) for name, (metric, inputs) in metrics.items()}
        torch.save(plain, Path(folder) / "metrics.pt")
        multiprocessing.set_forkserver_preload([__name__])  # imports once, whatever the number of processes
        start_processes(_process, (world_size, folder), nprocs=world_size, start_method="forkserver")
        answers = [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(world_size)]
    for name, (metric, inputs) in metrics.items():
        whole = _result(_filled(metric, inputs))
        for rank, answer in enumerate(answers):
            assert answer["world_size"] == world_size, f"process {rank} saw {answer['world_size']} processes"
            for way in ("padded", "uneven", "one has all", "no seeds"):
                counts = answer[name][way]
                assert counts == whole, (
                    f"{name}, {way}: process {rank} of {world_size} counts {counts}, one alone {whole}"
                )
            assert answer[name]["local"] < len(inputs[0]), f"{name}: process {rank} saw every sample; nothing was split"


def check_device(metric: Metric, inputs: Sequence[Any], waits: int | None) -> None:
    """Checks an update on an accelerator, without one: all tensors are there, and the host waits as often as stated.

    Args:
        metric: As built by name; it is not changed.
        inputs: Arguments of its update; floats and images are moved to the device, class numbers stay on the host.
        waits: How often the host waits, to look at what it was given; None leaves that open.

    Raises:
        AssertionError: a tensor was left on the CPU, or the host waited another number of times.
    """
    with FakeDevice(), torch.no_grad():
        there = metric.clone().to("cuda")
        moved = [item.to("cuda") if item.dtype != torch.int64 else item for item in inputs]
        for seeds in (None, range(len(inputs[0]))):
            with Waits() as counter:
                there.update(*moved, seeds=seeds)
            counted = dict(counter.counted)
            right = waits is None or sum(counted.values()) == waits
            assert right, f"the host waits for the device, {waits} times are stated: {counted}"
        for name, state in there.metric_state.items():
            for tensor in state if isinstance(state, list) else [state]:
                assert tensor.device.type == "cuda", f"state {name} is on {tensor.device}, not on the metric's device"


def check_set_metric(metric: SetMetric, inputs: tuple[Tensor, Tensor]) -> None:
    """The distance depends on the two sets only: not on batches, order, copies of numbered samples or its own life.

    Args:
        metric: As built by name; it is not changed.
        inputs: What the two systems drew, of equal length.
    """
    whole = float(_filled(metric, inputs).compute())
    count = len(inputs[0])
    order = torch.randperm(3 * count, generator=torch.Generator().manual_seed(1)) % count
    ways = {"batches": [(part, None) for part in torch.arange(count).split(5)]}
    ways["copies of numbered samples"] = [(part, part + 100) for part in order.split(11)]
    for way, parts in ways.items():
        fresh = metric.clone()
        for rows, seeds in parts:
            fresh.update(*[item[rows] for item in inputs], seeds=seeds)
        value = float(fresh.compute())
        assert abs(value - whole) <= 1e-9 * max(1, abs(whole)), f"{way}: distance {value}, of whole sets {whole}"
    filled = _filled(metric, inputs)
    for copy in (filled.clone(), pickle.loads(pickle.dumps(filled))):
        assert float(copy.compute()) == whole, "a copy has another distance"
    filled.train()
    assert not filled.state_dict(), f"the state dict holds {list(filled.state_dict())}"
    assert not list(filled.parameters()), "a metric has no parameters"
    assert len(list(filled.modules())) == 1, "a network inside the metric is one of its modules"
    torn = metric.clone()
    torn.update(*[item[:2] for item in inputs], seeds=[7, 7])
    _expect_seed(torn)


def _filled(metric: Any, inputs: Sequence[Tensor]) -> Any:
    fresh = metric.clone()
    fresh.reset()
    fresh.update(*inputs)
    return fresh


def _plain(counts: Sequence[Any]) -> list[Any]:
    return [count.tolist() if isinstance(count, Tensor) else count for count in counts]


def _counts(metric: CountMetric, inputs: Sequence[Tensor]) -> list[Any]:
    return _plain(_filled(metric, inputs).counts())


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.nan_to_num(nan=-1.0), other.nan_to_num(nan=-1.0))


def _result(metric: Any) -> list[Any]:
    """Integer counts and value; of a distance its value, to what sums in another order allow."""
    if isinstance(metric, CountMetric):
        return [*_plain(metric.counts()), metric.compute().nan_to_num(nan=-1.0).tolist()]
    return [f"{float(metric.compute()):.9g}"]


def _expect_seed(torn: Metric) -> None:
    message = "no error"
    try:
        torn.compute()
    except UserError as error:
        message = str(error)
    assert "seed 7" in message, f"a seed with two outcomes gives {message}; it must be an error that names the seed"


def _process(rank: int, world_size: int, folder: str) -> None:
    import torch.distributed as dist
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
    from torch.utils.data import SequentialSampler

    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", meeting, timedelta(seconds=120), world_size, rank)
    try:
        answer: dict[str, Any] = {"world_size": dist.get_world_size()}
        for name, (metric, inputs) in torch.load(Path(folder) / "metrics.pt", weights_only=False).items():
            rows = torch.arange(len(inputs[0]))
            sampler = DistributedSamplerWrapper(SequentialSampler(rows), world_size, rank, shuffle=False)
            padded = torch.tensor(list(sampler))
            cuts = [len(rows) * (number + 1) ** 2 // world_size**2 for number in range(world_size - 1)]
            uneven = rows.tensor_split(cuts)[rank]
            answer[name] = {
                "local": len(padded),
                "padded": _shared(metric, inputs, padded, numbered=True),
                "uneven": _shared(metric, inputs, uneven, numbered=True),
                "one has all": _shared(metric, inputs, rows if rank == 0 else rows[:0], numbered=True),
                "no seeds": _shared(metric, inputs, uneven, numbered=False),
            }
        (Path(folder) / f"{rank}.json").write_text(json.dumps(answer))
    finally:
        dist.destroy_process_group()


def _shared(metric: Any, inputs: Sequence[Tensor], rows: Tensor, numbered: bool) -> list[Any]:
    """Counts over all processes, of which this one saw some rows in two batches, or none."""
    metric = metric.clone()
    for part in rows.tensor_split(2):
        if len(part):
            seeds = {"seeds": part} if numbered else {}
            metric.update(*[item[part] for item in inputs], **seeds)
    return _result(metric)
