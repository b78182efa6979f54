"""`make test-faults`: breaks everything that can be broken here, on SQLite and on PostgreSQL, and prints what was measured.

`--write` puts the figures into docs/reliability.md, between its two marks.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from jobs.models.device import probe
from tests.faults import figures, postgres
from webapp.settings.env import PROJECT

DOCUMENT = PROJECT / "docs" / "reliability.md"
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"
RACE = "tests/webapp/runs/test_lease.py::test_claim_race_of_eight_processes"
WALKS = "tests/webapp/runs/test_state_machine.py"
# Longer than in `make test`, and other ones each time.
WALKS_EACH = "60"
SESSIONS = {
    "SQLite": ["-n", "4", "--dist", "worksteal", "tests/faults", "tests/flow/test_faults.py", RACE, WALKS],
    # One after another: they restart the one server.
    "PostgreSQL": ["-n", "0", "tests/faults/test_database.py", "tests/faults/test_fencing.py", RACE, WALKS],
}


def main() -> int:
    """Runs both sessions; gives 1 where a test failed, or a figure is missing or beyond its promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="graft-figures-") as folder:
        path = Path(folder) / "figures.jsonl"
        codes = [_session(name, path) for name in SESSIONS]
        table, bad = figures.table(figures.read(path))
    when = f"{datetime.now(tz=UTC):%d %B %Y}"
    text = f"Measured on {when} by `make test-faults` on {_machine()}, in {time.monotonic() - began:.0f} s.\n\n{table}"
    sys.stdout.write(f"\n{text}\n")
    if bad:
        sys.stdout.write(f"\nNot measured, or not as promised: {', '.join(bad)}\n")
    if options.write:
        before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
        DOCUMENT.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    return int(any(codes) or bool(bad))


def _session(name: str, path: Path) -> int:
    if name == "PostgreSQL" and postgres.binaries() is None:
        sys.stdout.write("PostgreSQL: there is none (requirements-dev.txt has one), so its session is left out.\n")
        return 1
    pytest = [sys.executable, "-m", "pytest", "--durations=10", *SESSIONS[name]]
    command = [sys.executable, "-m", "tests.faults.postgres", *pytest] if name == "PostgreSQL" else pytest
    sys.stdout.write(f"== {name}\n")
    sys.stdout.flush()
    return subprocess.run(
        command, cwd=PROJECT, env={**os.environ, figures.VARIABLE: str(path), "GRAFT_STATE_MACHINE_EXAMPLES": WALKS_EACH}, check=False
    ).returncode


def _machine() -> str:
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' * (cores > 1)} of an {probe()['name']} with a load of {os.getloadavg()[1]:.0f}"


if __name__ == "__main__":
    sys.exit(main())
