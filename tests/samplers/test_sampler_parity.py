"""Runs of reference implementations, recorded in ``tests/oracles/samplers``, reproduced far inside their tolerances."""

from pathlib import Path

import pytest
from parity_samplers import run_fixture

ORACLES = Path(__file__).parents[1] / "oracles" / "samplers"


@pytest.mark.parametrize(
    ("name", "outputs", "bound"),
    [("dpm_solver", 326, 1e-7), ("optimal_denoiser", 3, 1e-8), ("score_sde_marginals", 25, 1e-11)],
)
def test_recorded_runs(name, outputs, bound):
    checks = list(run_fixture(ORACLES / name))
    wrong = [check for check in checks if not check.passed or check.error > bound]
    assert not wrong, f"{len(wrong)} of {len(checks)}: {wrong[:3]}"
    assert len(checks) == outputs


def test_dpm_solver_to_rounding():
    """68 runs; the two adaptive ones pass their step size through float32 in the reference."""
    errors = {check.name: check.error for check in run_fixture(ORACLES / "dpm_solver") if check.name.endswith("_x0")}
    assert len(errors) == 68
    assert max(errors.pop("run66_x0"), errors.pop("run67_x0")) < 1e-8
    assert max(errors.values()) < 1e-12
