"""`python -m jobs preview FILE`: what the rows of a file become. With `--json`, standard input may hold
`{"mapping": {...}, "rows": 5, "skip": 0, "suffix": "csv"}`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.data.recognition import SAMPLE_ROWS, preview
from jobs.data.requests import Fields, read_request

HELP = "Show rows of a file as they will be trained on."
MOST_ROWS = 200


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`FILE`; all else is in the request."""
    parser.add_argument("file", type=Path, metavar="FILE")


def run(arguments: argparse.Namespace) -> int:
    """Prints the rows; refuses file or mapping by `UserError`."""
    fields = Fields(read_request() if arguments.json else {}, known=("mapping", "rows", "skip", "suffix"))
    shown = preview(
        arguments.file,
        fields.mapping(),
        rows=fields.count("rows", SAMPLE_ROWS, most=MOST_ROWS),
        skip=fields.count("skip", 0, most=10**9),
        suffix=fields.text("suffix"),
    )
    print(json.dumps(shown, ensure_ascii=False) if arguments.json else _words(shown))  # noqa: T201
    return 0


def _words(shown: dict[str, Any]) -> str:
    lines = []
    for row in shown["rows"]:
        lines.append(f"-- {shown['numbers_count']} {row['line']}")
        if "problem" in row:
            lines.append(f"{row['problem']['message']} {row['problem']['remedy']}")
        lines += [f"{'*' if part['trained'] else ' '} {part['role']}: {part['content']}" for part in row.get("parts", ())]
    return "\n".join([*lines, "(* is trained on)"])
