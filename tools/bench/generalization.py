"""GL against its bare matrix product: time and memory, in one run.

    python tools/bench/generalization.py --samples 10000 --train 50000 --size 512 --repeats 3
    python tools/bench/generalization.py --mapped --train 1281167 --samples 10000 --repeats 1

Prints wall and processor times (medians, in alternation), their ratios, and the largest memory above the inputs. Kinds
of features: ``half`` the samples near a training image and the others far from all; ``random``, all of them far;
``clustered``; ``duplicated``, a third of the training set one image. ``--mapped`` leaves the training features on the
disk, in a temporary file, and takes the bare product in pieces. On a machine that others use too, take ``--threads 1``
and look at the processor time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable

import numpy
import torch

from repro.metrics.functional import generalization_score


def _resident() -> int:
    """Bytes of this process in memory, less those of files that are mapped, which the system can drop at any time."""
    with open("/proc/self/statm") as file:
        _, resident, mapped, *_ = map(int, file.read().split())
    return (resident - mapped) * os.sysconf("SC_PAGE_SIZE")


class PeakMemory:
    """Largest memory above that at the start: of the device, or of this process, looked at every 2 ms."""

    def __init__(self, device: str) -> None:
        self.cuda = device.startswith("cuda")
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
            self._start = torch.cuda.memory_allocated()
        else:
            self._start, self._stop = _resident(), threading.Event()
            self._thread = threading.Thread(target=self._watch)
            self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.bytes = max(self.bytes, _resident() - self._start)

    def __exit__(self, *_: object) -> None:
        if self.cuda:
            self.bytes = torch.cuda.max_memory_allocated() - self._start
        else:
            self._stop.set()
            self._thread.join()


def seconds(work: Callable[[], object], device: str) -> tuple[float, float]:
    """Wall and processor time of one call, finished on the device."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - processor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--train", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--kind", choices=("half", "random", "clustered", "duplicated"), default="half")
    parser.add_argument("--mapped", action="store_true")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    samples, train = _features(options, generator)
    with tempfile.TemporaryDirectory() as folder:
        if options.mapped:
            numpy.save(f"{folder}/train.npy", train.numpy())
            train = torch.from_numpy(numpy.load(f"{folder}/train.npy", mmap_mode="c"))
        _measure(options, samples.to(options.device), train.to(options.device))


def _features(options: argparse.Namespace, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    samples = torch.randn(options.samples, options.size, generator=generator)
    train = torch.randn(options.train, options.size, generator=generator)
    if options.kind == "half":
        samples[: options.samples // 2] += 1.4 * train[torch.arange(options.samples // 2) % options.train]
    elif options.kind == "clustered":
        centres = 1.2 * torch.randn(50, options.size, generator=generator)
        for each in (samples, train):
            each += centres[torch.randint(50, (len(each),), generator=generator)]
    elif options.kind == "duplicated":
        train[::3] = train[0]
        samples[::4] = train[0]
    return samples, train


def _measure(options: argparse.Namespace, samples: torch.Tensor, train: torch.Tensor) -> None:
    at_once = 25_000 if options.mapped else options.train
    product = torch.empty(options.samples, at_once, device=options.device)

    def bare_product() -> None:
        for part in train.split(at_once):
            torch.mm(samples, part.T, out=product[:, : len(part)] if len(part) == at_once else None)

    bare, score = [], []
    for _ in range(options.repeats):
        bare.append(seconds(bare_product, options.device))
        score.append(seconds(lambda: generalization_score(samples, train), options.device))
    with PeakMemory(options.device) as memory:
        value = generalization_score(samples, train)
    print(
        f"GL of {options.samples:,} x {options.train:,} x {options.size} on {options.device}: {value}, {options.kind}"
    )
    gflop = 2e-9 * options.samples * options.train * options.size
    for place, kind in enumerate(("wall", "processor")):
        product_time = statistics.median(times[place] for times in bare)
        score_time = statistics.median(times[place] for times in score)
        print(
            f"{kind:9}  bare float32 product {product_time:7.3f} s ({gflop / product_time:.0f} GFLOP/s)  "
            f"generalization_score {score_time:7.3f} s  ratio {score_time / product_time:.3f} (goal 0.8)"
        )
    print(f"memory above the inputs {memory.bytes / 2**20:.0f} MiB (goal 1024)")


if __name__ == "__main__":
    main()
