"""`python -m jobs sniff FILE`: what a file of rows is, and which layouts fit it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.data.recognition import sniff
from jobs.data.sources import SUFFIXES

HELP = "Say what a file of rows is: kind, encoding, columns, and the layouts that fit it."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`FILE`, and what it was called where its path does not say it."""
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--suffix", choices=sorted(SUFFIXES), default="", help="what the file's name ended in, where its path lacks it")


def run(arguments: argparse.Namespace) -> int:
    """Prints what was found; refuses the file by `UserError`."""
    found = sniff(arguments.file, suffix=arguments.suffix)
    print(json.dumps(found, ensure_ascii=False) if arguments.json else _words(found))  # noqa: T201
    return 0


def _words(found: dict[str, Any]) -> str:
    facts = found["facts"]
    told = [facts["kind"], facts["compressed"], facts["encoding"], facts["newline"], facts["separator"]]
    lines = [", ".join(word for word in told if word), f"columns: {', '.join(facts['columns'])}"]
    lines += [f"{one['mapping']['format']} ({one['confidence']:.0%}): {one['reason']}" for one in found["suggestions"]]
    lines += [f"{one['message']} {one['remedy']}" for one in found["warnings"] + found["problems"]]
    return "\n".join(lines)
