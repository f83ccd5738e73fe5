#!/usr/bin/env python
"""Compares samplers, kernels, losses and exact denoisers with recorded runs of reference implementations.

    tools/parity_samplers.py FOLDER ...      a fixture folder, or a folder of fixture folders

Each fixture is a folder with ``meta.json`` (settings, tolerances) and ``io.safetensors`` (inputs, expected outputs).
Every option that the references' functions take is read from the settings, so other step counts, schedules, orders
and noise levels than those recorded here work too. Exit code 0 only if everything passes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from parity_consistency import consistency_sampling
from parity_dpm_solver import dpm_solver
from parity_edm import edm_loss, edm_sampler
from parity_fixture import Check, Fixture
from parity_formulas import optimal_denoiser, score_sde_marginals

from repro.errors import UserError

__all__ = ["CHECKS", "run_fixture"]

CHECKS: dict[str, Callable[[Fixture], Iterator[Check]]] = {
    "consistency_fn": consistency_sampling,
    "dpm_solver": dpm_solver,
    "edm_loss": edm_loss,
    "edm_sampler": edm_sampler,
    "optimal_denoiser": optimal_denoiser,
    "score_sde_marginals": score_sde_marginals,
}


def run_fixture(folder: Path) -> Iterator[Check]:
    """The checks of one fixture folder.

    Raises:
        UserError: not a fixture that this tool knows.
    """
    fixture = Fixture(folder)
    name = next((known for known in CHECKS if fixture.meta["name"].startswith(known)), None)
    if name is None:
        raise UserError(f"{folder} holds {fixture.meta['name']!r}; this tool knows {', '.join(CHECKS)}")
    yield from CHECKS[name](fixture)


def main(arguments: list[str]) -> int:
    folders = []
    for path in map(Path, arguments):
        inside = [path] if (path / "meta.json").exists() else sorted(p.parent for p in path.glob("*/meta.json"))
        folders += inside if len(inside) == 1 else [p for p in inside if p.name.startswith(tuple(CHECKS))]
    failed = 0
    for folder in folders:
        for check in run_fixture(folder):
            failed += not check.passed
            verdict = "pass" if check.passed else "FAIL"
            print(f"{verdict}  {folder.name}/{check.name}  error {check.error:.2e}  of allowed {check.part:.2%}")
    print(f"{failed} failed" if failed else "all passed")
    return 1 if failed or not folders else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
