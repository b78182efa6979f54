"""`python -m jobs inspect`: what a folder of model files is, or why it cannot be used."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

HELP = "say what a folder of model files is, or why it cannot be used"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("folder", type=Path, help="the model's folder")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    from jobs.models.inspect import inspect_model

    facts = inspect_model(arguments.folder).to_json()
    text = json.dumps(facts) if arguments.json else "\n".join(f"{name}: {value}" for name, value in facts.items())
    sys.stdout.write(text + "\n")
    return 0
