"""A small program that keeps the contract of `python -m jobs train` and misbehaves on request: it trains nothing and writes real events.

`--steps N --seconds S` says how long it takes; `--behave` how it goes wrong. A file `<var>/behave/<run id>` says it for one run.
"""

from __future__ import annotations

import argparse
import faulthandler
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from jobs.commands.standby import redirect
from jobs.commands.train import be_first_to_go
from jobs.events import EventWriter, read_events
from jobs.handover import HandOver
from jobs.leash import Leash
from webapp.core.processes import die_with_parent

stop_asked = False
finish_asked = False


def ask_to_finish(*_: object) -> None:
    global finish_asked  # noqa: PLW0603
    finish_asked = True


def ask_to_stop(*_: object) -> None:
    global stop_asked  # noqa: PLW0603
    stop_asked = True


def start_step(resume: list[Path]) -> int:
    """The newest checkpoint among the folders given."""
    return max((int(path.name.removeprefix("step-")) for folder in resume for path in folder.glob("step-*")), default=0)


def add_behaviour(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.02)
    parser.add_argument("--behave", default="")


def main() -> int:
    parser = argparse.ArgumentParser()
    add_behaviour(parser)
    parser.add_argument("--standby", action="store_true")
    parser.add_argument("spec", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--token-cache", type=Path)
    parser.add_argument("--token-cache-bytes", type=int)
    parser.add_argument("--resume", type=Path, nargs="*", default=[])
    parser.add_argument("--parent-pid", type=int, required=True)
    parser.add_argument("--leash", type=Path)
    parser.add_argument("--private", type=Path)
    options = parser.parse_args()
    die_with_parent(options.parent_pid)
    be_first_to_go()
    if options.standby:
        line = sys.stdin.buffer.readline()
        if not line:
            return 0
        told = HandOver.from_line(line)
        options.spec, options.out, options.resume = Path(told.spec), Path(told.out), [Path(folder) for folder in told.resume]
        options.leash = Path(told.leash)
        redirect(Path(told.log))
    behaviour = options.out.parents[1].with_name("behave") / options.out.parent.name
    if behaviour.exists():
        own = argparse.ArgumentParser()
        add_behaviour(own)
        own.parse_args(behaviour.read_text().split(), namespace=options)
    faulthandler.register(signal.SIGUSR2)
    signal.signal(signal.SIGTERM, signal.SIG_IGN if options.behave == "deaf" else ask_to_stop)
    signal.signal(signal.SIGUSR1, ask_to_finish)
    return train(options)


def train(options: argparse.Namespace) -> int:
    leash = Leash(options.leash) if options.leash else None
    if leash:
        leash.start()
    events = EventWriter(options.out / "events.jsonl", leash.look if leash else bool)
    first = start_step(options.resume)
    (options.out / "environment").write_text("\n".join(f"{name}={value}" for name, value in os.environ.items()))
    events.emit("phase", name="loading", done=0, total=1, unit="tensors")
    if options.behave == "grandchild":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (options.out / "grandchild").write_text(str(child.pid))
    events.emit("plan", total_steps=options.steps, start_step=first, test_rows=0)
    events.emit("phase", name="training", done=first, total=options.steps, unit="steps")
    for step in range(first + 1, options.steps + 1):
        time.sleep(options.seconds)
        if code := misfortune(options, events, step):
            return code
        loss = float("nan") if options.behave == "nan" else 4.0 / step
        events.emit("step", step=step, epoch=step / options.steps, loss=loss, memory={"resident_bytes": 1000 + step})
        if stop_asked:
            checkpoint(options.out, events, step)
            events.emit("finished", outcome="preempted", step=step)
            return 75
        if finish_asked:
            checkpoint(options.out, events, step)
            break
    events.emit("phase", name="saving", done=0, total=1, unit="bytes")
    time.sleep(options.seconds)
    artifact(options, events)
    events.emit("finished", outcome="succeeded", step=options.steps)
    return 0


def misfortune(options: argparse.Namespace, events: EventWriter, step: int) -> int:
    """What goes wrong at the third step."""
    if step != 3:
        return 0
    match options.behave:
        case "hang":
            time.sleep(600)
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "memory":
            raise MemoryError
        case "eat":
            eaten = []
            while True:
                eaten.append(b"x" * 2**24)
        case "mute":
            sys.stderr.write("Traceback: \x1b[31mboom\x1b[0m\x07 in the loop\n")
            return 1
        case "nonfinite":
            words = {"code": "nonfinite", "message": "The loss was not finite.", "remedy": "Lower the learning rate.", "where": {"line": 7}}
            events.emit("finished", outcome="failed", step=step, **words)
            return 79
        case "cuda_oom":
            return 80
        case "preempted":
            checkpoint(options.out, events, step)
            events.emit("finished", outcome="preempted", step=step)
            return 75
    return 0


def checkpoint(out: Path, events: EventWriter, step: int) -> None:
    (out / "checkpoints" / f"step-{step:08}").mkdir(parents=True)
    events.emit("checkpoint", step=step, path=f"checkpoints/step-{step:08}", bytes=0, seconds=0.0, best=False)


def artifact(options: argparse.Namespace, events: EventWriter) -> None:
    path = options.out / "artifacts" / "adapter.zip"
    path.parent.mkdir()
    path.write_bytes(b"weights" * 1000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if options.behave == "damaged":
        path.write_bytes(b"Weights" * 1000)
    said = {"name": "adapter.zip", "kind": "adapter", "path": "artifacts/adapter.zip", "bytes": 7000, "sha256": digest}
    events.emit("artifact", **said, files=[], details={})
    assert list(read_events(options.out / "events.jsonl"))


if __name__ == "__main__":
    sys.exit(main())
