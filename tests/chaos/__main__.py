"""`python -m tests.chaos --seeds 1-200`: seed after seed on sites of their own; says which were red, and why.

The engine is the real one, on a tiny model, or a stand-in (`--stand-in`); the clocks are those of tests/flow/site.py. Exit code 1 where a
seed was red.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RUNS = 20
SECONDS = 20.0


def main() -> int:
    """Runs the seeds that are asked for; gives the exit code."""
    parser = argparse.ArgumentParser(prog="tests.chaos", description=__doc__)
    parser.add_argument("--seeds", default="1", help="a number, or first-last")
    parser.add_argument("--runs", type=int, default=RUNS, help="runs of a seed (%(default)s)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long strokes fall (%(default)s)")
    parser.add_argument(
        "--stand-in", default="", metavar="OPTIONS", help="tests.webapp.runs.trainer with these options trains, not the engine"
    )
    parser.add_argument("--until", type=float, default=float("inf"), help="no new seed after so many seconds")
    parser.add_argument("--results", type=Path, help="a file that gets one line of JSON for each seed")
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    with tempfile.TemporaryDirectory(prefix="graft-chaos-", ignore_cleanup_errors=True) as folder:
        prepare(Path(folder))
        from tests.chaos.seed import Seed, ground

        began, red = time.monotonic(), 0
        numbers = list(range(int(first), int(last or first) + 1))
        while numbers and time.monotonic() - began < options.until:
            # A red seed leaves a site that may be in disorder: the next one gets another.
            with ground(options.stand_in) as on:
                wrong = False
                while numbers and not wrong and time.monotonic() - began < options.until:
                    seed = Seed(numbers.pop(0), runs=options.runs, seconds=options.seconds)
                    result = seed.run(on)
                    wrong = bool(result["wrong"])
                    red += wrong
                    show(str(seed.plan), result)
                    if options.results:
                        with options.results.open("a") as file:
                            file.write(json.dumps(result) + "\n")
    return 1 if red else 0


def show(plan: str, result: dict[str, Any]) -> None:
    """A line for a green seed; for a red one the schedule, and what was wrong."""
    verdict = "RED" if result["wrong"] else "green"
    counts = ", ".join(f"{number} {name}" for name, number in sorted(result["ends"].items()))
    sys.stdout.write(f"seed {result['seed']}: {verdict}, {counts}; {result['attempts']} attempts, {result['seconds']:.0f} s\n")
    if result["wrong"]:
        sys.stdout.write("\n".join([plan, *(f"  !! {wrong}" for wrong in result["wrong"])]) + "\n")
    sys.stdout.flush()


def prepare(folder: Path) -> None:
    """Django with a database in `folder`, or the PostgreSQL of `DATABASE_URL`, and its tables."""
    os.environ.setdefault("DATABASE_URL", f"sqlite:///{folder}/chaos.sqlite3")
    os.environ.update(
        GRAFT_VAR=str(folder), GRAFT_SECRET_KEY="for-tests-only", DJANGO_SETTINGS_MODULE="webapp.settings.base",
        GRAFT_REGIONS=str(folder / "regions"), HF_HUB_OFFLINE="1", GRAFT_PARENT_PID=str(os.getpid()),
    )  # fmt: skip
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


if __name__ == "__main__":
    sys.exit(main())
