"""How long the command line takes to answer: median wall time of fresh processes, against the project's limits.

Run it alone on the machine: python tools/bench/startup.py [REPEATS]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

CASES = (
    ("repro --help", ["--help"], 1.0, False),
    ("repro plugins", ["plugins"], 1.0, False),
    ("repro fit --help", ["fit", "--help"], 6.0, True),
    ("repro fit --help, page kept", ["fit", "--help"], 6.0, False),
)


def seconds(arguments: list[str], cache: str) -> float:
    command = [sys.executable, "-c", "import sys; from repro.cli.main import main; sys.exit(main())", *arguments]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"REPRO_CACHE": cache})
    return time.perf_counter() - began


def main() -> int:
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    slow = 0
    with tempfile.TemporaryDirectory() as kept:
        for title, arguments, limit, fresh in CASES:
            times = []
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as empty:
                    times.append(seconds(arguments, empty if fresh else kept))
            median = statistics.median(times)
            slow += median > limit
            print(f"{title:<30} median of {repeats}: {median:.2f} s (limit {limit:.0f} s), slowest {max(times):.2f} s")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
