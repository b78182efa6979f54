"""`python -m jobs see MODEL FILE`: a row of a dataset version's file as the model gets it: text, tokens with ids, and what is trained on.

With `--json`, standard input may hold `{"row": 0, "loss_on": "completion", "max_length": 1024}`; rows count from 0, 0 is no maximum.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from jobs.data.requests import Fields, read_request

HELP = "Show a row as the model gets it: rendered, with its tokens and what is trained on."
# What marks each kind of text for a reader of the terminal.
_MARKS = {True: "[{}]", False: "{}"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model's folder and the file; all else is in the request."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="the model's folder")
    parser.add_argument("file", type=Path, metavar="FILE", help="train.jsonl, validation.jsonl or test.jsonl of a dataset version")
    parser.add_argument("--row", type=int, default=0, metavar="N", help="which row, counted from 0 (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the row; refuses a file, a row or a template by `UserError`."""
    from jobs.data.seen import see
    from jobs.models.plain_tokenizer import load_plain_tokenizer

    fields = Fields(read_request() if arguments.json else {}, known=("row", "loss_on", "max_length"))
    tokenizer = load_plain_tokenizer(arguments.model)
    shown = see(
        arguments.file,
        fields.count("row", arguments.row, most=10**9),
        tokenizer,
        loss_on=fields.text("loss_on") or "completion",
        max_length=fields.count("max_length", 0, most=10**9) or None,
    )
    shown["template"] = tokenizer.template_from
    print(json.dumps(shown, ensure_ascii=False) if arguments.json else _words(shown))  # noqa: T201
    return 0


def _words(shown: dict[str, Any]) -> str:
    text = "".join(_MARKS[piece["trained"]].format(piece["text"]) for piece in shown["pieces"])
    return f"{text}\n\n[in brackets: trained on] {shown['token_count']:,} tokens, {shown['trained_count']:,} trained on"
