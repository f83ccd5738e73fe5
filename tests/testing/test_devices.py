"""The rehearsed accelerator: what counts as a wait, and what does not."""

import pytest
import torch

from repro.devices import onto
from repro.testing.devices import FakeDevice, Waits, WithoutWaiting

CUDA = torch.device("cuda")


def pageable(x):
    return torch.ones(3).to(x.device)


def pinned_but_blocking(x):
    return torch.ones(3).pin_memory().to(x.device)


def not_pinned(x):
    return torch.ones(3).to(x.device, non_blocking=True)


WAITING = {
    "item": (lambda x: x.sum().item(), "item"),
    "tolist": (lambda x: x.tolist(), "item"),
    "truth": (lambda x: bool((x > 0).all()), "item"),
    "nonzero": (lambda x: (x > 0).nonzero(), "nonzero"),
    "mask": (lambda x: x[x > 0], "nonzero"),
    "bincount": (lambda x: x.long().bincount(minlength=2), "bincount"),
    "to host": (lambda x: x.cpu(), "pageable"),
    "pageable": (pageable, "pageable"),
    "pinned but blocking": (pinned_but_blocking, "pageable"),
    "not pinned": (not_pinned, "pageable"),
    "a new number": (lambda x: x.new_tensor(2.0), "pageable"),
    "new numbers": (lambda x: torch.tensor([1.0, 2.0], device=x.device), "pageable"),
    "filled": (lambda x: x.copy_(torch.ones(3)), "pageable"),
    "masked values": (lambda x: x.index_put((x > 0,), x), "nonzero"),
}
FLOWING = {
    "a number of the host": lambda x: x * torch.tensor(2.0, dtype=torch.float64),
    "onto": lambda x: x + onto(x.device, torch.ones(3), x.dtype),
    "onto in another dtype": lambda x: onto(x.device, torch.ones(3), torch.float64),
    "filled where": lambda x: torch.where(x > 0, 0.0, x),
    "filled by a mask": lambda x: x.masked_fill(x > 0, 1.0),
    "filled by an index": lambda x: x.index_put((x > 0,), torch.tensor(0.0)),
    "rows": lambda x: x[torch.zeros(2, dtype=torch.int64, device=x.device)],
    "the host's own": lambda x: float(torch.arange(4.0).sum()) + len(torch.ones(3).nonzero()),
    "full": lambda x: torch.full((2,), 3.0, device=x.device),
}


@pytest.mark.parametrize("name", WAITING)
def test_a_wait_is_counted_and_refused(name):
    operation, reason = WAITING[name]
    with FakeDevice(), Waits() as waits:
        operation(torch.ones(3, device=CUDA))
    assert [reason in each for each in waits.counted] == [True]
    with FakeDevice(), WithoutWaiting(), pytest.raises(AssertionError, match="the host waits for the device"):
        operation(torch.ones(3, device=CUDA))


@pytest.mark.parametrize("name", FLOWING)
def test_what_is_no_wait(name):
    with FakeDevice(), WithoutWaiting():
        FLOWING[name](torch.ones(3, device=CUDA))


def test_a_tensor_left_on_the_host_is_refused():
    with FakeDevice(), Waits(), pytest.raises(AssertionError, match=r"shape \(3,\) was left on the CPU"):
        torch.ones(3, device=CUDA) + torch.ones(3)
    with FakeDevice(), Waits(), pytest.raises(AssertionError, match="left on the CPU"):
        torch.ones(3, device=CUDA)[torch.zeros(2, dtype=torch.int64)]


def test_the_host_has_values_and_the_device_has_none():
    with FakeDevice():
        assert torch.arange(3).sum().item() == 3
        there = torch.arange(3, device=CUDA)
        assert (there.device.type, there.sum().item()) == ("cuda", 1)
    assert torch.ones(2).device.type == "cpu"


def test_copies_to_this_machines_processor_are_plain():
    x = torch.ones(3)
    assert onto(torch.device("cpu"), x) is x
    assert onto(torch.device("cpu"), x, torch.float64).dtype == torch.float64
