"""`python -m benchmarks.ui [PAGE ...]`: the pages' times beside their targets; ends with 1 where one is missed.

Each page is a module of this package with `measure() -> list[Measured]`, which runs within a temporary site and brings its own rows.
"""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.ui.measured import Measured, table
from benchmarks.ui.site import temporary_site

PAGES = ("runs_list", "run_page", "compare")


def main() -> int:
    """Measures the pages that are named, else all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ui", description=__doc__)
    parser.add_argument("pages", nargs="*", metavar="PAGE", help=f"of {', '.join(PAGES)}; all by default")
    wanted = parser.parse_args().pages or PAGES
    if unknown := set(wanted) - set(PAGES):
        parser.error(f"no page {', '.join(sorted(unknown))}; there are {', '.join(PAGES)}")
    found: list[Measured] = []
    with temporary_site():
        for page in wanted:
            found += importlib.import_module(f"benchmarks.ui.{page}").measure()
    print(table(found))
    return 0 if all(row.holds for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
