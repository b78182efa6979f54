"""`python -m tests.matrix METHOD...`: the checks of some methods by hand, with what failed."""

from __future__ import annotations

import tests.environment  # isort: skip  # an own `var`, and no hub
import argparse
import sys
import tempfile
from pathlib import Path

from jobs.methods.registry import METHODS, get_method
from tests.matrix.conformance import Workplace, cells, check
from tests.matrix.running import quiet

assert tests.environment.TEST_VAR


def main() -> int:
    """Prints a report for each cell; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="*", default=list(METHODS), help="ids; all where none is given")
    parser.add_argument("--task", help="this task alone")
    parser.add_argument("--bits", type=int, help="this base alone")
    parser.add_argument("--trace", action="store_true", help="where it failed")
    arguments = parser.parse_args()
    quiet()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Workplace(Path(folder))
        for method in arguments.methods:
            for cell in cells(get_method(method)):
                if arguments.task not in (None, cell.task) or arguments.bits not in (None, cell.bits):
                    continue
                report = check(cell, place, Path(folder) / str(cell))
                failed += bool(report.failed)
                sys.stdout.write(f"{report}\n")
                if arguments.trace:
                    sys.stdout.write("\n".join(filter(None, report.traces.values())))
                sys.stdout.flush()
        place.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
