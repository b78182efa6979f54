"""`python -m jobs methods`: the catalogue of methods."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from jobs.methods.registry import all_methods

HELP = "list the fine-tuning methods and their settings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(arguments: argparse.Namespace) -> int:
    """Prints every method with its settings; as one JSON array with `--json`."""
    methods = all_methods()
    if arguments.json:
        sys.stdout.write(json.dumps([asdict(method) for method in methods]) + "\n")
        return 0
    for method in methods:
        sys.stdout.write(f"{method.id}  {method.name} (learning rate {method.learning_rate:g})\n  {method.summary}\n")
        for setting in method.settings:
            sys.stdout.write(f"    {setting.name} = {setting.default}: {setting.help}\n")
    return 0
