"""`python -m jobs device`: what this machine can do."""

from __future__ import annotations

import argparse
import json
import sys

from jobs.models.device import probe

HELP = "say which device training would use, and what it can do"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(arguments: argparse.Namespace) -> int:
    """Prints the device; as one JSON object with `--json`."""
    device = probe()
    if arguments.json:
        sys.stdout.write(json.dumps(device) + "\n")
        return 0
    speed = "in hardware" if device["bfloat16"] else "not in hardware"
    sys.stdout.write(
        f"{device['kind']}: {device['name']}\n"
        f"memory: {device['memory_bytes'] / 2**30:.1f} GiB\nthreads: {device['threads']}\nbfloat16: {speed}\ndevices: {device['count']}\n"
    )
    return 0
