"""`python -m jobs validate`: every row checked, and the files of a dataset version written.

The request is on standard input: `{"files": {"train": PATH, "validation": PATH | null, "test": PATH | null}, "mapping": {...},
"skip_bad_rows": false, "validation_share": 0.05, "test_share": 0.0, "seed": 0, "out": DIR | null, "suffixes": {"train": "csv"}}`;
a person names the training file as an argument instead. With `--json`, progress and then the outcome are one object a line.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.commands.progress import PhaseProgress
from jobs.data.requests import read_request
from jobs.data.validation import ValidationRequest, request_from_json, validate

HELP = "Check every row of a dataset and write its train, validation and test files."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The training file, for a person; else a request on standard input."""
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="the training file (without it: a request on standard input)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where to write the checked files")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave bad rows out instead of refusing the file")


def run(arguments: argparse.Namespace) -> int:
    """Prints the outcome. Bad rows are an outcome (exit 0, `ok` false); a file that cannot be used at all is a `UserError`."""
    if arguments.file is not None:
        request = ValidationRequest({"train": arguments.file}, skip_bad_rows=arguments.skip_bad_rows, out=arguments.out)
    else:
        request = request_from_json(read_request())
    # Whoever asked on standard input wants to know how far it is; a person sees the outcome alone.
    told = PhaseProgress("loading", "rows", as_json=True) if arguments.json else None
    outcome = validate(request, told) if told else validate(request)
    print(json.dumps(outcome.to_json(), ensure_ascii=False) if arguments.json else _words(outcome.ok, outcome.report))  # noqa: T201
    return 0


def _words(ok: bool, report: dict[str, Any]) -> str:
    lines = [f"{'ok' if ok else 'not usable'}: {report['rows']} rows, {report['good']} good, {report['bad']} bad, {report['format']}"]
    lines += [f"{split}: {rows} rows" for split, rows in report["splits"].items()]
    lines += [f"{one['message']} {one['remedy']}" for one in report["problems"][:20] + report["notes"][:20]]
    return "\n".join(lines)
