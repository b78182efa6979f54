"""`python -m jobs methods`: the catalogue of methods."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from jobs.errors import UserError
from jobs.methods.adapter import count_trained
from jobs.methods.entry import Method
from jobs.methods.registry import all_methods
from jobs.models.frame import Frame, read_frame
from jobs.spec import TASKS

HELP = "list the fine-tuning methods and their settings"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument(
        "--model", type=Path, metavar="DIR", help="a base model: how many numbers each method trains on it, at its defaults"
    )
    parser.add_argument("--task", choices=TASKS, default=TASKS[0], help="with what this task puts upon the base (%(default)s)")
    parser.add_argument("--labels", type=int, default=2, help="of a classification (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints every method with its settings; as one JSON array with `--json`, with `trained_parameters` where a base is named (null: it is
    not known before a run, or the method does not fit). Raises `UserError` where there is no such base.
    """
    methods = all_methods()
    frame = read_frame(arguments.model, arguments.task, arguments.labels) if arguments.model else None
    trained = {method.id: _trained(method, frame) for method in methods} if frame else {}
    if arguments.json:
        more = {name: {"trained_parameters": count} for name, count in trained.items()}
        sys.stdout.write(json.dumps([asdict(method) | more.get(method.id, {}) for method in methods]) + "\n")
        return 0
    for method in methods:
        told = f", trains {trained[method.id]:,}" if trained.get(method.id) else ""
        sys.stdout.write(f"{method.id}  {method.name} (learning rate {method.learning_rate:g}{told})\n  {method.summary}\n")
        for setting in method.settings:
            sys.stdout.write(f"    {setting.name} = {setting.default}: {setting.help}\n")
    return 0


def _trained(method: Method, frame: Frame) -> int | None:
    try:
        return count_trained(method.plan_adapter(method.resolve({}), frame), frame)
    except UserError:
        return None
