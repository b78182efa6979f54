"""`python -m jobs fetch`: download a base model from a Hugging Face Hub."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from jobs.commands.progress import PhaseProgress

HELP = "download a base model from a Hugging Face Hub by name"


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
        progress=PhaseProgress("downloading", "bytes", as_json=arguments.json),
    )
    if arguments.json:
        sys.stdout.write(json.dumps({"model": {**asdict(origin), **facts.to_json()}}) + "\n")
    else:
        sys.stdout.write(f"{origin.name} at {origin.revision} ({facts.parameters:,} parameters) is at {arguments.out}\n")
    return 0
