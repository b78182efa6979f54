"""`python -m jobs serve`: answers questions as they come, a JSON line each on standard input, in JSON lines on standard output.

`{"do": "ask", ...}` with the fields of `jobs.serving.spec.Ask`; `{"do": "cancel", "id": ...}`; `{"do": "unload"}`; `{"do": "status"}`;
`{"do": "quit"}`. It ends where its input does.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.confinement import EVERYTHING, READ, all_but, limit_files, no_connections, no_powers
from jobs.errors import GraftError
from jobs.parent import die_with

if TYPE_CHECKING:
    from jobs.serving.engine import Engine
    from jobs.serving.spec import Reply

HELP = "keep models loaded and answer questions as they come"
_WRITING = threading.Lock()
_END: dict[str, Any] = {"do": "quit"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long an idle model stays, and what of the file system is given up."""
    parser.add_argument(
        "--idle-seconds", type=float, default=600.0, metavar="S", help="after so long an idle model is let go (%(default)s)"
    )

    parser.add_argument("--private", type=Path, metavar="DIR", help="give up this folder but for models and runs, and all connections")


def run(arguments: argparse.Namespace) -> int:
    """Answers until the input ends."""
    die_with(os.getppid())
    if arguments.private is not None:
        _leave_to_others(arguments.private)
    from jobs.commands.train import prepare_environment

    prepare_environment()
    from jobs.serving.engine import Engine

    lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    engine = Engine(_say)
    _write({"kind": "ready"})
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while True:
        command = _next(lines, engine, arguments.idle_seconds)
        if command is None:
            engine.turn()
        elif command.get("do") == "quit":
            return 0
        else:
            _do(engine, command)


def _leave_to_others(private: Path) -> None:
    """Gives up, for good, the site's folder but for reading models and what runs left behind; and every connection."""
    root = os.path.realpath(private)
    read = [(os.path.join(root, name), READ) for name in ("models", "runs", "sample-model")]
    limit_files([*all_but(root), *read, (os.environ.get("HOME", root), EVERYTHING)])
    no_powers()
    no_connections()


def _next(lines: queue.SimpleQueue[dict[str, Any]], engine: Engine, idle_seconds: float) -> dict[str, Any] | None:
    """The next command, None where there is work to go on with; waits where there is neither, and lets idle models go meanwhile."""
    while True:
        try:
            if engine.busy:
                return lines.get_nowait()
            return lines.get(timeout=max(0.05, min(idle_seconds, 5.0)))
        except queue.Empty:
            if engine.busy:
                return None
            if engine.unload(idle_seconds):
                _write(_status(engine))


def _do(engine: Engine, command: dict[str, Any]) -> None:
    from jobs.serving.spec import Ask

    match command.pop("do", None):
        case "ask":
            try:
                engine.put(Ask.from_json(command))
            except GraftError as error:
                _write(
                    {"id": str(command.get("id", "")), "kind": "refused", "code": error.code, "message": f"{error.message} {error.remedy}"}
                )
        case "cancel":
            engine.cancel(str(command.get("id", "")))
        case "unload":
            engine.unload()
            _write(_status(engine))
        case "status":
            _write(_status(engine))


def _status(engine: Engine) -> dict[str, Any]:
    models = [
        {"folder": folder, "bits": bits, "adapters": list(loaded.names), "answering": sum(map(len, loaded.answering.values()))}
        for (folder, bits, _), loaded in engine.loaded.items()
    ]
    return {"kind": "status", "models": models}


def _read(lines: queue.SimpleQueue[dict[str, Any]]) -> None:
    """Runs in a thread of its own: reading blocks."""
    for line in sys.stdin:
        try:
            command = json.loads(line)
        except ValueError:
            command = None
        if isinstance(command, dict):
            lines.put(command)
        else:
            _write({"kind": "refused", "id": "", "code": "request_invalid", "message": "A line is no JSON object."})
    lines.put(_END)


def _say(reply: Reply) -> None:
    _write(reply.to_json())


def _write(body: dict[str, Any]) -> None:
    with _WRITING:
        sys.stdout.write(json.dumps(body, ensure_ascii=False) + "\n")
        sys.stdout.flush()
