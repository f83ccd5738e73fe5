"""Runs of reference implementations, recorded in ``tests/oracles/samplers``, reproduced far inside their tolerances."""

from pathlib import Path

import pytest
from parity_checks.checks import run_fixture

ORACLES = Path(__file__).parents[1] / "oracles" / "samplers"


@pytest.mark.parametrize(
    ("name", "outputs", "bound"),
    [("dpm_solver", 327, 1e-7), ("optimal_denoiser", 3, 1e-8), ("score_sde_marginals", 25, 1e-11)],
)
def test_recorded_runs(name, outputs, bound):
    checks = run_fixture(ORACLES / name).checks
    wrong = [check for check in checks if not check.passed or check.error > bound]
    assert not wrong, f"{len(wrong)} of {len(checks)}: {wrong[:3]}"
    assert len(checks) == outputs
    images = {check.name: check.error for check in checks if check.name.endswith("_x0")}
    rounded = {"run66_x0": 1e-8, "run67_x0": 1e-8}  # adaptive: the reference passes its step through float32
    assert all(error < rounded.get(run, 1e-12) for run, error in images.items() if name == "dpm_solver")
