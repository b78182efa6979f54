"""`python -m jobs lengths MODEL FILE`: how long the rows of a dataset version's file are in a model's tokens (`jobs.data.token_lengths`).

With `--json`, progress and then the answer are one object a line on standard output.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.commands.progress import PhaseProgress

HELP = "Say how long the rows of a file are in a model's tokens."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model's folder, the file and what counts as trained on."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="the model's folder")
    parser.add_argument("file", type=Path, metavar="FILE", help="train.jsonl, validation.jsonl or test.jsonl of a dataset version")
    parser.add_argument("--rows", type=int, metavar="N", help="how many rows the file has, where they have been counted")
    parser.add_argument("--loss-on", choices=("completion", "all"), default="completion", help="what is trained on (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the lengths; refuses model, file or template by `UserError`."""
    from jobs.data.token_lengths import token_lengths
    from jobs.models.plain_tokenizer import load_plain_tokenizer

    tokenizer = load_plain_tokenizer(arguments.model)
    rows = arguments.rows if arguments.rows is not None else _count(arguments.file)
    progress = PhaseProgress("tokenizing", "rows", as_json=arguments.json)
    found = token_lengths(arguments.file, rows, tokenizer, loss_on=arguments.loss_on, progress=progress)
    found["template"] = tokenizer.template_from
    print(json.dumps(found) if arguments.json else _words(found))  # noqa: T201
    return 0


def _count(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _words(found: dict[str, Any]) -> str:
    longest = found["lengths"][-1][0] if found["lengths"] else 0
    return (
        f"{found['looked_at']:,} of {found['rows']:,} rows: {found['tokens']:,} tokens, {found['trained_tokens']:,} trained on; "
        f"the longest row has {longest:,}"
    )
