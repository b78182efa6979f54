"""`python -m benchmarks.validate [--bytes N]`: validation of a large JSONL file in the box, as the site runs it.

Prints MB/s of one core (processor seconds of the child, system calls included), by the clock, and the child's peak of memory; beside it the
rate of the examination that comes after a validation (docs/data-check.md). Ends with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.validate.rows import write_rows

TARGET_MB_PER_SECOND = 60.0
TARGET_PEAK_MB = 500.0
# The examination is slower, and is no part of the promise: a part of the rows says what it costs.
EXAMINED_BYTES = 20_000_000


@dataclass(frozen=True)
class Spent:
    """What a child took: seconds by the clock and of the processor, and its peak of resident memory in bytes."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def main() -> int:
    """Writes the file, validates it, prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.validate", description=__doc__)
    parser.add_argument("--bytes", type=int, default=10**9, help="size of the file (default: 1 GB)")
    parser.add_argument("--folder", type=Path, help="where the files go for the time of the measurement (default: the system's)")
    arguments = parser.parse_args()
    os.environ.setdefault("GRAFT_SECRET_KEY", "only-for-the-time-of-this-measurement")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings.base")
    import django

    # Nothing of the site's rows is read; the limits of the box stand beside its models.
    django.setup()
    with tempfile.TemporaryDirectory(prefix="graft-bench-", dir=arguments.folder) as folder:
        return _measure(Path(folder), arguments.bytes)


def _measure(folder: Path, size: int) -> int:
    # The small one first: the peak of memory that the system tells is that of all children so far.
    examined, examination = _examination(folder / "small", min(size, EXAMINED_BYTES))
    rows, size, spent = _validation(folder / "large", size)
    rate, peak = size / 1e6 / spent.cpu_seconds, spent.peak_bytes / 1e6
    print(f"validation of {size / 1e6:.0f} MB, {rows} rows: {rate:.1f} MB/s of one core (target {TARGET_MB_PER_SECOND:g}),", end=" ")
    print(f"{size / 1e6 / spent.seconds:.1f} MB/s by the clock, peak {peak:.0f} MB (target {TARGET_PEAK_MB:g})")
    beside = examined / 1e6 / examination.cpu_seconds
    print(f"not in the figure, copies and languages of {examined / 1e6:.0f} MB: {beside:.1f} MB/s of one core")
    return 0 if rate >= TARGET_MB_PER_SECOND and peak <= TARGET_PEAK_MB else 1


def _validation(folder: Path, size: int) -> tuple[int, int, Spent]:
    """Rows and bytes of the file, and what their validation took; the rows stand in `folder/rows`."""
    path, out = folder / "rows.jsonl", folder / "rows"
    out.mkdir(parents=True)
    rows = write_rows(path, size)
    answer, spent = _in_box(["validate"], {"files": {"train": str(path)}, "out": str(out)}, path, out)
    assert answer["report"]["good"] == rows, answer["report"]["problems"][:1]
    return rows, path.stat().st_size, spent


def _examination(folder: Path, size: int) -> tuple[int, Spent]:
    _rows, size, _spent = _validation(folder, size)
    out = folder / "examined"
    out.mkdir()
    return size, _in_box(["examine", str(folder / "rows"), "--out", str(out)], {}, folder / "rows", out)[1]


def _in_box(command: list[str], request: dict[str, Any], path: Path, out: Path) -> tuple[dict[str, Any], Spent]:
    from webapp.core.box import run_in_box
    from webapp.datasets.services.validate import LIMITS

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    answer = run_in_box([*command, "--json"], request=request, readable=[path], writable=out, limits=LIMITS, on_line=lambda _line: None)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return answer, Spent(seconds, cpu, after.ru_maxrss * 1024)


if __name__ == "__main__":
    sys.exit(main())
