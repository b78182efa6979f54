"""The command line: `python -m jobs COMMAND`. A command's module is imported only when it is asked for."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from importlib import import_module

from jobs.errors import GraftError

COMMANDS: dict[str, str] = {
    "train": "jobs.commands.train",
    "standby": "jobs.commands.standby",
    "evaluate": "jobs.commands.evaluate",
    "generate": "jobs.commands.generate",
    "serve": "jobs.commands.serve",
    "methods": "jobs.commands.methods",
    "device": "jobs.commands.device",
    "sniff": "jobs.commands.sniff",
    "preview": "jobs.commands.preview",
    "validate": "jobs.commands.validate",
    "see": "jobs.commands.see",
    "lengths": "jobs.commands.lengths",
    "examine": "jobs.commands.examine",
    "inspect": "jobs.commands.inspect",
    "describe": "jobs.commands.describe",
    "tensors": "jobs.commands.tensors",
    "unpack": "jobs.commands.unpack",
    "fetch": "jobs.commands.fetch",
    "sample": "jobs.commands.sample",
    "estimate": "jobs.commands.estimate",
    "advise": "jobs.commands.advise",
    "analyse": "jobs.commands.analyse",
    "compose": "jobs.commands.compose",
    "merge": "jobs.commands.merge",
    "warm": "jobs.commands.warm",
}


def main(argv: list[str] | None = None) -> int:
    """Runs one command. An error of ours goes to standard error, as JSON where `--json` is given, and sets the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m jobs", description="Graft's engine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    asked = argv[0] if argv and argv[0] in COMMANDS else None
    if asked in ("train", "standby", "compose", "analyse"):
        # numpy's OpenBLAS starts its threads at import. Training computes with torch's, and a process that waits has none.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    for name, module_name in COMMANDS.items():
        if asked in (None, name):
            module = import_module(module_name)
            command = commands.add_parser(name, help=module.HELP, description=module.HELP)
            command.add_argument("--json", action="store_true", help="print JSON on standard output")
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    arguments = parser.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except GraftError as error:
        text = json.dumps({"error": error.to_json()}) if arguments.json else f"error: {error.message}\n  {error.remedy}"
        with suppress(OSError):  # a log on a full disk
            print(text, file=sys.stderr, flush=True)
        return int(error.exit_code)


if __name__ == "__main__":
    sys.exit(main())
