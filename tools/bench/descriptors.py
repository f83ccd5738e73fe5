#!/usr/bin/env python
"""Times descriptors of 32x32 images by the published network, as ratios to the per-image pipeline.

    tools/bench/descriptors.py [--images 16] [--repeats 3] [--threads 1] [--size 32] [--network resnet50]

The per-image pipeline is the published one: each image becomes a Pillow image, is resized to 320x320, made a tensor,
normalised, and goes through torchvision's network alone. It is measured beside the same with one batch in the network,
and ours: resized as one batch of tensors, weights folded and packed once, in float32 and in bfloat16. Weights are
random; the networks are the same function. Rounds alternate; prints images a second of CPU time, which other work on
the machine disturbs less than the clock, and the median of paired ratios.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.transforms import v2

from repro.descriptors.released import prepacked
from repro.descriptors.sscd import SSCD
from repro.networks.sscd import GeM, SSCDNetwork
from repro.released.sscd import layout as layout

SIZES = {
    "resnet50": {"layers": [3, 4, 6, 3], "num_classes": 512},
    "resnext101": {"layers": [3, 4, 23, 3], "groups": 32, "width_per_group": 4, "num_classes": 1024},
}


def published(name: str) -> torch.nn.Module:
    """torchvision's network at a published size, with the published pooling and head."""
    network = ResNet(Bottleneck, **SIZES[name])
    network.avgpool = GeM(3.0)
    return network.eval().requires_grad_(False)


def ours(network: torch.nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    foreign = {f"backbone.{key}": tensor for key, tensor in network.state_dict().items()}
    own = SSCDNetwork(**layout.settings(foreign))
    own.load_state_dict(layout.state_dict(foreign, own))
    return prepacked(own.eval().requires_grad_(False), dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for option, default in (("images", 16), ("repeats", 3), ("threads", 1), ("size", 32)):
        parser.add_argument(f"--{option}", type=int, default=default)
    parser.add_argument("--network", choices=list(SIZES), default="resnet50")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    images = torch.randint(0, 256, (options.images, 3, options.size, options.size)).to(torch.uint8)
    steps = [v2.Resize((320, 320)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    one = v2.Compose([v2.ToPILImage(), *steps, v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    network, descriptor = published(options.network), SSCD()
    cpu, dtypes = torch.device("cpu"), {"ours": torch.float32, "ours, bfloat16": torch.bfloat16}
    fast = {name: ours(network, dtype) for name, dtype in dtypes.items()}
    systems: dict[str, Callable[[], Tensor]] = {
        "image by image": lambda: F.normalize(torch.cat([network(one(image)[None]) for image in images])),
        "batch in the network": lambda: F.normalize(network(torch.stack([one(image) for image in images]))),
    }
    for name, described in fast.items():
        systems[name] = lambda described=described: torch.cat(
            [described(descriptor.prepare(part, cpu)) for part in images.split(SSCD.batch_size)]
        )
    answers = {name: system() for name, system in systems.items()}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(options.repeats):
        for name, system in systems.items():
            start = time.process_time()
            system()
            seconds[name].append(time.process_time() - start)
    print(f"{options.network}, {options.images} images of {options.size}x{options.size}, {options.threads} threads")
    for name, taken in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(seconds["image by image"], taken, strict=True))
        gap = float((answers[name] - answers["image by image"]).abs().max())
        speed = options.images / statistics.median(taken)
        print(f"{name:>22}  {speed:6.2f} images/CPU s  {ratio:5.2f} x image by image; vectors within {gap:.1e}")


if __name__ == "__main__":
    main()
