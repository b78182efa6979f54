"""`make bench-start`: from the start of a run to its first step, Graft's ways and HF Trainer + PEFT in turn.

The same work for all: the 600 chats of examples/tickets, LoRA r 16 on all linear layers of the sample model, bf16, batch 8, nothing
evaluated. The clock starts where the process is started, or where the waiting process is told its run, and stops at the first step's loss.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers import ROOT, ensure_env
from benchmarks.workloads import Case, graft_spec
from jobs.events import Event, read_events
from jobs.handover import HandOver

ROWS = ROOT / "examples" / "tickets" / "train.jsonl"
CASE = Case("lora", "bf16", "tickets")
PATIENCE_SECONDS = 300


def main() -> None:
    """Runs every way in turn, `--runs` times, and prints a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.start", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("GRAFT_SAMPLE_MODEL") or ROOT / "var" / "sample-model"))
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    python = ensure_env("hf")
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        bench = Start(Path(folder), arguments.model, python)
        bench.fill_cache()
        for _ in range(arguments.runs):
            for name, way in bench.ways().items():
                found.setdefault(name, []).append(way())
                print(json.dumps({"way": name, **found[name][-1]}), file=sys.stderr, flush=True)
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    ratios = {name: medians["hf-trainer"] / seconds for name, seconds in medians.items() if name != "hf-trainer"}
    print(json.dumps({"seconds_to_first_loss": medians, "times_faster_than_hf_trainer": ratios, "runs": found}, indent=2))


class Start:
    """The ways to start the same run, each in a fresh process with a fresh output folder."""

    def __init__(self, folder: Path, model: Path, python: Path) -> None:
        self.folder, self.model, self.python = folder, model.resolve(), python
        self.spec = folder / "spec.json"
        self.spec.write_text(json.dumps(graft_spec(CASE, ROWS, self.model)), encoding="utf-8")
        self.warm, self.cold = folder / "tokens", folder / "no-tokens"

    def ways(self) -> dict[str, Callable[[], dict[str, float]]]:
        """By name; `cached` means that the rows were tokenised by an earlier run."""
        return {
            "graft-waiting-cached": lambda: self.graft(waiting=True, cache=self.warm),
            "hf-trainer": self.peer,
            "graft-waiting": lambda: self.graft(waiting=True, cache=self.cold),
            "graft-cached": lambda: self.graft(waiting=False, cache=self.warm),
            "graft": lambda: self.graft(waiting=False, cache=self.cold),
        }

    def fill_cache(self) -> None:
        """One run that is not counted: token ids, the compiler's cache and the system's file cache."""
        self.graft(waiting=False, cache=self.warm)
        self.peer()

    def graft(self, *, waiting: bool, cache: Path) -> dict[str, float]:
        """Seconds to the first step, and to the start of each phase before it."""
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        shutil.rmtree(self.cold, ignore_errors=True)
        out.mkdir()
        told = HandOver(str(self.spec), str(out), (), str(cache), 2**30, str(out / "child.log"), str(out / "leash"))
        command = [sys.executable, "-m", "jobs", "standby" if waiting else "train", "--parent-pid", str(os.getpid())]
        if not waiting:
            command += [told.spec, "--out", told.out, "--token-cache", told.token_cache]
        started = time.time()
        with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if waiting:
                process.stdout.readline()
                time.sleep(1)  # it has long been waiting when somebody clicks
                started = time.time()
                process.stdin.write(told.to_line())
                process.stdin.close()
            events = _until_step(out / "events.jsonl", process)
            process.kill()
        return {"seconds": events[-1].t - started, **_phases(events, started)}

    def peer(self) -> dict[str, float]:
        """Seconds from the start of the script to the line that it prints at its first step."""
        job = {"model": str(self.model), "rows": str(ROWS), **asdict(CASE)}
        path = self.folder / "peer.json"
        path.write_text(json.dumps(job), encoding="utf-8")
        started = time.time()
        command = [str(self.python), "-m", "benchmarks.peers.start_trainer", str(path)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=PATIENCE_SECONDS)
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return {"seconds": said.pop("step_at") - started, **{name: at - started for name, at in said.items() if name.endswith("_at")}}


def _until_step(path: Path, process: subprocess.Popen[bytes]) -> list[Event]:
    """The events up to the first step."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        events = list(read_events(path)) if path.exists() else []
        kinds = [event.kind for event in events]
        if "step" in kinds:
            return events[: kinds.index("step") + 1]
        time.sleep(0.005)
    raise RuntimeError(f"no step; exit code {process.poll()}")


def _phases(events: list[Event], started: float) -> dict[str, float]:
    """When each phase was first told of."""
    first: dict[str, float] = {}
    for event in events:
        name = event.data["name"] if event.kind == "phase" else event.kind
        first.setdefault(f"{name}_at", event.t - started)
    return first


if __name__ == "__main__":
    main()
