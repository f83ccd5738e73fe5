"""The processes that draw together: one, or one a device, launched by Lightning's Fabric."""

from __future__ import annotations

from typing import Any

from lightning.fabric import Fabric

from repro.training.notes import without_notes

__all__ = ["launch", "one_process"]


def one_process(accelerator: str = "auto") -> Fabric:
    """Makes the Fabric of this process alone, on one device."""
    with without_notes():
        return Fabric(accelerator=accelerator, devices=1)


def launch(
    accelerator: Any = "auto",
    devices: Any = "auto",
    num_nodes: int = 1,
    strategy: Any = "auto",
    precision: Any = None,
) -> Fabric:
    """Launches the processes that draw together; in each of them it returns, and knows its rank.

    Args:
        accelerator: As ``lightning.Trainer`` takes it, like all the others.
        devices: How many devices of each machine, or which.
        num_nodes: Machines.
        strategy: How the processes work together, such as ``ddp``.
        precision: Of the networks.
    """
    fabric = Fabric(
        accelerator=accelerator, devices=devices, num_nodes=num_nodes, strategy=strategy, precision=precision
    )
    fabric.launch()
    return fabric
