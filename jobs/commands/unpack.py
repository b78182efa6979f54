"""`python -m jobs unpack`: a model out of a zip archive, its plain files alone."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jobs.commands.progress import PhaseProgress

HELP = "unpack a zip archive of a model's files, and nothing else, into an empty folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("archive", type=Path, help="the zip archive")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an empty folder")
    parser.add_argument("--limit", type=int, default=2**40, metavar="BYTES", help="the most that it may unpack to (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """With `--json`, a `phase` event a line, and last `{"files": [...]}`. Refuses by `UserError("archive_refused")`."""
    from jobs.models.unpack import unpack_model

    progress = PhaseProgress("unpacking", "bytes", as_json=arguments.json)
    files = unpack_model(arguments.archive, arguments.out, limit=arguments.limit, progress=progress)
    sys.stdout.write(json.dumps({"files": files}) + "\n" if arguments.json else "\n".join(files) + "\n")
    return 0
