"""`python -m jobs standby`: a training process started ahead of its run. It imports, waits to be told the run, then is `train`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from jobs.commands import train
from jobs.errors import ExitCode
from jobs.handover import HandOver
from jobs.imports import import_engine
from jobs.models.device import gpu_count
from jobs.parent import die_with

HELP = "wait, with everything imported, for the run to train (its worker starts this)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Whose death is ours. What to train comes on standard input, as one line of `jobs.handover.HandOver`."""
    parser.add_argument("--parent-pid", type=int, required=True, help="end at once when this process, our parent, ends")


def run(arguments: argparse.Namespace) -> int:
    """Says `ready`, waits without having touched a GPU, then trains and returns as `train` does. Ends where standard input does."""
    if not die_with(arguments.parent_pid):
        return ExitCode.INTERNAL
    train.prepare_environment()
    import_engine(peft=gpu_count() == 0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        return ExitCode.DONE
    told = HandOver.from_line(line)
    redirect(Path(told.log))
    return train.run(
        argparse.Namespace(
            spec=Path(told.spec),
            out=Path(told.out),
            resume=[Path(folder) for folder in told.resume],
            token_cache=Path(told.token_cache),
            token_cache_bytes=told.token_cache_bytes,
            parent_pid=arguments.parent_pid,
            leash=Path(told.leash),
            private=Path(told.private) if told.private else None,
            json=False,
        )
    )


def redirect(log: Path) -> None:
    """Standard output and error into the run's log, nothing on standard input: as if the run had been started so."""
    for path, flags, targets in ((log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, (1, 2)), (Path(os.devnull), os.O_RDONLY, (0,))):
        handle = os.open(path, flags, 0o600)
        for target in targets:
            os.dup2(handle, target)
        os.close(handle)
