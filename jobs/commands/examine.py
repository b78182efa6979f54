"""`python -m jobs examine FOLDER`: copies and near copies, labels, turns and languages of a dataset version (`jobs.data.examination`).

With `--json`, progress and then the answer are one object a line on standard output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.commands.progress import PhaseProgress

HELP = "Look for copies and near copies among the rows of a dataset version, count its labels and turns, guess its languages."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The version's folder, and where the pairs are written."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where train.jsonl, validation.jsonl and test.jsonl are")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="where pairs.jsonl is written")
    parser.add_argument("--lines", type=Path, metavar="DIR", help="where the validation kept the line numbers of the rows")


def run(arguments: argparse.Namespace) -> int:
    """Prints what was found."""
    from jobs.data.examination import SPLITS, examine

    files = {split: arguments.folder / f"{split}.jsonl" for split in SPLITS}
    counts = {split: _count(path) for split, path in files.items() if path.is_file()}
    phases: dict[str, PhaseProgress] = {}

    def progress(phase: str, done: int, total: int) -> None:
        phases.setdefault(phase, PhaseProgress(phase, "rows", as_json=arguments.json))(done, total)

    found = examine(arguments.folder, counts, arguments.out, lines=arguments.lines, progress=progress)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else _words(found))  # noqa: T201
    return 0


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _words(found: dict[str, Any]) -> str:
    lines = [f"{split}: {rows:,} rows" for split, rows in found["rows"].items()]
    for kind, name in (("copies", "copies"), ("near", "near copies")):
        lines += [f"{name} within {split}: {rows:,}" for split, rows in found[kind]["within"].items()]
        lines += [f"{name} of {one['other']} in {one['split']}: {one['rows']:,}" for one in found[kind]["across"]]
    lines += [f"language {one['code']}: {one['rows']:,} of {found['languages']['looked_at']:,}" for one in found["languages"]["counts"]]
    return "\n".join(lines)
