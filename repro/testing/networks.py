"""Laws that every network obeys; a package that registers a network runs them on it too."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from repro import records
from repro.errors import UserError
from repro.testing.devices import WithoutWaiting
from repro.training.chosen import chosen_parameters

__all__ = [
    "NOISE_LEVELS",
    "check_attention",
    "check_conditions",
    "check_device",
    "check_float64",
    "check_gradients",
    "check_graph",
    "check_inputs",
    "check_network",
    "check_record",
    "check_rows",
    "check_sizes",
    "check_state",
]

NOISE_LEVELS = (0.01, 0.1, 0.3, 0.45, 0.7, 1.0, 250.0, 500.0, 750.0, 999.0)


def check_network(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """Runs every law on a network.

    Args:
        build: Makes a small network, as ``lambda: registry.build("networks", "MLP", image_size=8, channels=1)``.
        noise_levels: Noise levels that reach every part of the network.

    Raises:
        AssertionError: a law is broken; the message says which and how.
    """
    laws = (check_gradients, check_conditions, check_rows, check_state, check_float64, check_inputs, check_attention)
    for law in laws:
        law(build, noise_levels)
    check_graph(build, noise_levels)
    check_device(build)
    check_record(build)
    check_sizes(build)


def check_gradients(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """Checks that the output has the input's shape, and every parameter gets a finite gradient."""
    network = _shaken(build).train()
    x, levels, labels = _batch(network, noise_levels)
    output = network(x, levels, labels)
    assert output.shape == x.shape, f"output has shape {tuple(output.shape)} for images of shape {tuple(x.shape)}"
    output.square().mean().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"parameter {name} gets no gradient"
            assert parameter.grad.isfinite().all(), f"the gradient of parameter {name} is not finite"
            assert parameter.grad.any(), f"the gradient of parameter {name} is zero everywhere"


def check_conditions(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """Checks that the output depends on the noise level and, in a conditional network, on the label."""
    network = _shaken(build).eval()
    x, levels, labels = _batch(network, noise_levels)
    x = x[:1].expand_as(x)
    with torch.no_grad():
        outputs = network(x, levels, None if labels is None else torch.zeros_like(labels))
        _assert_rows_differ(outputs, "noise levels")
        if labels is not None:
            classes = torch.arange(network.num_classes)
            outputs = network(x[:1].repeat(len(classes), 1, 1, 1), levels[:1].repeat(len(classes)), classes)
            _assert_rows_differ(outputs, "labels")


def check_rows(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """In evaluation the answer for an image is deterministic and does not depend on the rest of the batch."""
    network = _shaken(build).eval()
    x, levels, labels = _batch(network, noise_levels)
    with torch.no_grad():
        whole = network(x, levels, labels)
        assert torch.equal(whole, network(x, levels, labels)), "two evaluations of one batch differ"
        for row in range(len(x)):
            own = slice(row, row + 1)
            alone = network(x[own], levels[own], None if labels is None else labels[own])
            _assert_close(alone, whole[own], 1e-4, f"image {row} alone and in a batch give different outputs")


def check_state(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """A state dict written to a file and read back with ``weights_only`` makes another instance the same network."""
    network, other = _shaken(build).eval(), build().eval()
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    x, levels, labels = _batch(network, noise_levels)
    with torch.no_grad():
        expected = network(x, levels, labels)
        assert torch.equal(other(x, levels, labels), expected), "the same weights in another instance answer otherwise"
        assert torch.equal(copy.deepcopy(network)(x, levels, labels), expected), "a deep copy answers otherwise"


def check_float64(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """In double precision the network answers in double precision, and as in single precision up to rounding."""
    network = _shaken(build).eval()
    x, levels, labels = _batch(network, noise_levels)
    with torch.no_grad():
        single = network(x, levels, labels)
        double = network.double()(x.double(), levels.double(), labels)
    assert double.dtype == torch.float64, f"a network in float64 answers in {double.dtype}"
    _assert_close(single.double(), double, 1e-3, "single and double precision give different outputs")


def check_inputs(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """Checks that images of another shape and wrong labels are refused with a UserError."""
    network = build().eval()
    x, levels, labels = _batch(network, noise_levels)
    _assert_refused("images with another number of channels", network, torch.cat([x, x], dim=1), levels, labels)
    _assert_refused("images of another size", network, x[..., :-1], levels, labels)
    wrong = torch.zeros(len(x), dtype=torch.int64)
    if labels is None:
        _assert_refused("labels of an unconditional network", network, x, levels, wrong)
        return
    _assert_refused("labels that are too few", network, x, levels, wrong[:-1])
    _assert_refused("labels that are not integers", network, x, levels, wrong.float())
    _assert_refused("a negative label", network, x, levels, wrong - 1)
    _assert_refused("a label above the last", network, x, levels, wrong + network.num_classes + 1)
    if not getattr(network, "has_null_class", False):
        _assert_refused("missing labels", network, x, levels, None)


def check_attention(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """A network with attention layers declares their parameters, and not all of its own; one without declares none.

    Attention layers are the modules that call torch's ``scaled_dot_product_attention``.
    """
    network = build().eval()
    x, levels, labels = _batch(network, noise_levels)
    try:
        declared = chosen_parameters(network, "attention")
    except UserError:
        declared = set()
    attending: set[str] = set()
    with torch.no_grad(), _attention_calls(network, attending):
        network(x, levels, labels)
    layers = tuple(f"{name}." for name in attending)
    own = {name for name, _ in network.named_parameters() if name.startswith(layers)}
    assert own <= declared, f"{min(own - declared)} belongs to an attention layer and is not declared to"
    assert bool(own) == bool(declared), f"{min(declared)} is declared to be of attention, but nothing attends"
    assert not own or len(declared) < len([*network.parameters()]), "every parameter is declared to be of attention"


@contextlib.contextmanager
def _attention_calls(network: nn.Module, called: set[str]) -> Iterator[None]:
    """Adds the names of the modules that attend meanwhile."""
    running, hooks, attend = [""], [], F.scaled_dot_product_attention

    def left(*_: Any) -> None:
        running.pop()

    for name, module in network.named_modules():
        hooks.append(module.register_forward_pre_hook(lambda *_, name=name: running.append(name)))
        hooks.append(module.register_forward_hook(left))

    def seen(*arguments: Any, **options: Any) -> Tensor:
        called.add(running[-1])
        return attend(*arguments, **options)

    try:
        with mock.patch.object(F, "scaled_dot_product_attention", seen):
            yield
    finally:
        for hook in hooks:
            hook.remove()


def check_record(build: Callable[[], nn.Module]) -> None:
    """Checks that a network rebuilt from its record has the same record and the same parameter shapes."""
    network = build()
    record = records.record_of(network)
    other = records.rebuild(record)
    assert records.record_of(other) == record, "the record changes when the network is rebuilt from it"
    shapes, others = ({name: value.shape for name, value in each.state_dict().items()} for each in (network, other))
    assert shapes == others, "a network rebuilt from its record has other parameters"


def check_sizes(build: Callable[[], nn.Module]) -> None:
    """Checks that every image size and number of channels either works or is refused with a UserError."""
    record = records.record_of(build())
    for size, channels in ((7, 1), (12, 3), (16, 2)):
        try:
            network = records.rebuild(record | {"args": record["args"] | {"image_size": size, "channels": channels}})
        except UserError:
            continue
        assert tuple(network.image_shape) == (channels, size, size), f"image_shape is {network.image_shape}"
        x, levels, labels = _batch(network.eval(), NOISE_LEVELS[:2])
        with torch.no_grad():
            output = network(x, levels, labels)
        assert output.shape == x.shape, f"output has shape {tuple(output.shape)} for images {tuple(x.shape)}"


def check_graph(build: Callable[[], nn.Module], noise_levels: Sequence[float] = NOISE_LEVELS) -> None:
    """Checks that ``torch.compile`` takes the network as one graph, which answers as the network does."""
    network = _shaken(build).eval()
    x, levels, labels = _batch(network, noise_levels)
    torch.compiler.reset()
    with torch.no_grad():
        right = network(x, levels, labels)
        try:
            answer = torch.compile(network, backend="eager", fullgraph=True, dynamic=False)(x, levels, labels)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = " ".join(str(error).split())[:300]
            raise AssertionError(f"the network is not one graph: {reason}") from error
    apart = float((answer - right).abs().max())
    assert apart <= 1e-5 * (1 + float(right.abs().max())), f"compiled, the network answers otherwise: {apart:.1e} apart"


def check_device(build: Callable[[], nn.Module]) -> None:
    """Checks that forward and backward on an accelerator: all tensors are there, and the host never waits for it.

    No accelerator is needed: fake tensors have devices and shapes, but no values. Their backward pass wants a real one,
    so gradients run on the meta device.
    """
    for device, fake in (("cuda", FakeTensorMode()), ("meta", contextlib.nullcontext())):
        with fake, torch.device(device):
            network = build().train()
            x, levels, labels = (
                each if each is None else each.to(device) for each in _batch(network, NOISE_LEVELS[:4])
            )
            with WithoutWaiting(), torch.set_grad_enabled(device == "meta"):
                output = network(x, levels, labels)
                assert output.device.type == device, f"the output is on {output.device}"
                if device == "meta":
                    output.square().mean().backward()
        for name, value in [*network.named_parameters(), *network.named_buffers()]:
            assert value.device.type == device, f"{name} is on {value.device}, not on the device of the network"


def _shaken(build: Callable[[], nn.Module]) -> nn.Module:
    """A network with no parameter left at zero, the same on every call."""
    network = build()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def _batch(network: nn.Module, noise_levels: Sequence[float]) -> tuple[Tensor, Tensor, Tensor | None]:
    count = len(noise_levels)
    x = torch.randn((count, *network.image_shape), generator=torch.Generator().manual_seed(1))
    classes = getattr(network, "num_classes", 0) or 0
    return x, torch.tensor(noise_levels), torch.arange(count) % classes if classes else None


def _assert_rows_differ(outputs: Tensor, cause: str) -> None:
    rows = outputs.flatten(1)
    gaps = torch.cdist(rows, rows) + torch.diag(torch.full((len(rows),), torch.inf))
    assert gaps.min() > 1e-5 * rows.norm(dim=1).max(), f"two different {cause} give the same output"


def _assert_close(answer: Tensor, expected: Tensor, tolerance: float, message: str) -> None:
    error = (answer - expected).abs().max() / expected.abs().max()
    assert error < tolerance, f"{message}: relative error {error:.1e}, at most {tolerance:.0e} is allowed"


def _assert_refused(what: str, network: nn.Module, *inputs: Tensor | None) -> None:
    try:
        network(*inputs)
    except UserError:
        return
    except Exception as error:
        raise AssertionError(f"{what} are refused with {type(error).__name__}, not with a UserError") from error
    raise AssertionError(f"{what} are not refused")
