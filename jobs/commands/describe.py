"""`python -m jobs describe`: all that a model's page tells of a folder of model files."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

HELP = "tell all of a model: facts, linear layers by kind, tokenizer, memory by method; or with --chat, what its chat template writes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("folder", type=Path, help="the model's folder")
    parser.add_argument("--chat", action="store_true", help="a short conversation by the model's chat template, and nothing else")


def run(arguments: argparse.Namespace) -> int:
    """Prints one JSON object: `facts`, `layers`, `tokenizer`, `needs`, `licence`; with `--chat`, `chat`. Refuses by `UserError`."""
    body = _chat(arguments.folder) if arguments.chat else _all(arguments.folder)
    sys.stdout.write(json.dumps(body, ensure_ascii=False, indent=None if arguments.json else 2) + "\n")
    return 0


def _chat(folder: Path) -> dict[str, Any]:
    from jobs.models.chat_preview import preview_chat

    return {"chat": preview_chat(folder)}


def _all(folder: Path) -> dict[str, Any]:
    from jobs.models.description import linear_layers, tokenizer_facts
    from jobs.models.inspect import inspect_model
    from jobs.models.licences import read_licence
    from jobs.planning.needs import needs_of

    facts = inspect_model(folder)
    task = facts.tasks[0]
    return {
        "facts": facts.to_json(),
        "layers": [asdict(kind) for kind in linear_layers(folder, task)],
        "tokenizer": tokenizer_facts(folder).to_json(),
        "needs": [need.to_json() for need in needs_of(folder, task)],
        "licence": read_licence(folder),
    }
