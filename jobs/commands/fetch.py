"""`python -m jobs fetch`: download a base model from a Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from jobs.events import Event

HELP = "download a base model from a Hugging Face Hub by name"
# At most so many progress lines a second: one bar needs no more.
LINE_SECONDS = 0.25


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("repository", help="the model's name, such as HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder; it must not exist")
    parser.add_argument("--revision", help="a commit, tag or branch; by default the main branch as it is now")
    parser.add_argument("--endpoint", help="the hub's URL; by default HF_ENDPOINT, else https://huggingface.co")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. With `--json`, standard output gets a `phase` event a line, and last `{"model": {...}}`: origin and facts."""
    from jobs.models.fetch import fetch_model

    origin, facts = fetch_model(
        arguments.repository,
        arguments.out,
        revision=arguments.revision,
        endpoint=arguments.endpoint,
        progress=_Progress(as_json=arguments.json),
    )
    if arguments.json:
        sys.stdout.write(json.dumps({"model": {**asdict(origin), **facts.to_json()}}) + "\n")
    else:
        sys.stdout.write(f"{origin.name} at {origin.revision} ({facts.parameters:,} parameters) is at {arguments.out}\n")
    return 0


class _Progress:
    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._seq = 0
        self._told = float("-inf")

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told < LINE_SECONDS and done < total:
            return
        self._told = now
        self._seq += 1
        if self._as_json:
            data = {"name": "downloading", "done": done, "total": total, "unit": "bytes"}
            sys.stdout.write(Event(self._seq, time.time(), "phase", data).to_line())
            sys.stdout.flush()
        else:
            sys.stderr.write(f"{done:,} of {total:,} bytes\n")
