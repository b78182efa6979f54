"""`python -m jobs tensors`: the config and the tensors of a folder of model files, for whoever plans with them and must not read them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import astuple
from pathlib import Path

HELP = "list the config and the tensors of a folder of model files, as one JSON object"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("folder", type=Path, help="the model's folder")


def run(arguments: argparse.Namespace) -> int:
    """Prints `{"config": {...}, "tensors": [[name, dtype, shape, bytes], ...]}`; refuses the folder by `UserError`."""
    from jobs.models.inspect import inspect_tensors

    config, tensors = inspect_tensors(arguments.folder)
    sys.stdout.write(json.dumps({"config": config, "tensors": [astuple(tensor) for tensor in tensors]}) + "\n")
    return 0
