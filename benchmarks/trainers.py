"""The trainers that are measured, and one measured run of one of them: a process of its own, under a time limit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.peers import ROOT
from benchmarks.peers.common import Job, peak_rss_bytes
from jobs.events import Event, read_events

LIMIT_SECONDS = 900.0
COMPILED_LIMIT_SECONDS = 1500.0
_POLL_SECONDS = 0.1
_REASON_CHARACTERS = 300


@dataclass(frozen=True)
class Trainer:
    """A trainer by name: `environment` is that of `benchmarks.peers`, Graft itself runs in ours; `script` a module of that package."""

    name: str
    environment: str = ""
    script: str = ""
    flags: tuple[str, ...] = ()
    methods: tuple[str, ...] = ("lora", "qlora", "full")
    compiled: bool = False

    @property
    def ours(self) -> bool:
        """Whether it is Graft."""
        return not self.environment


TRAINERS = (
    Trainer("graft"),
    Trainer("hf-padded", "hf", "hf_trainer"),
    Trainer("hf-flattening", "hf", "hf_trainer", ("--flatten",)),
    Trainer("trl", "trl", "trl_sft"),
    Trainer("trl-padding-free", "trl", "trl_sft", ("--padding-free",)),
    Trainer("llama-factory", "llama-factory", "llama_factory"),
    Trainer("litgpt", "litgpt", "litgpt_lora", methods=("lora",)),
    Trainer("hf-padded-compiled", "hf", "hf_trainer", ("--compile",), compiled=True),
    Trainer("hf-flattening-compiled", "hf", "hf_trainer", ("--flatten", "--compile"), compiled=True),
)


@dataclass(frozen=True)
class Step:
    """A step: its mean loss per label token, its real tokens, and how long it lasted."""

    seconds: float
    loss: float
    tokens: int

    @property
    def tokens_per_second(self) -> float:
        """Real tokens, padding left out."""
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Result:
    """What came of one run. `steps` from `first_timed` on count; `outcome` is `ok`, `failed` or `timeout`, with its `reason`.

    `settled` is false where a compiled trainer still compiled when its time to warm up was over.
    """

    case: str
    trainer: str
    round: int
    outcome: str
    reason: str = ""
    first_timed: int = 0
    settled: bool = True
    peak_rss_bytes: int = 0
    steps: list[Step] = field(default_factory=list)

    @property
    def timed(self) -> list[Step]:
        """The steps that count."""
        return self.steps[self.first_timed :]

    @property
    def warm_up_seconds(self) -> float:
        """How long the steps before them lasted."""
        return sum(step.seconds for step in self.steps[: self.first_timed])

    def to_json(self) -> dict[str, Any]:
        """One line of the file of results."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> Result:
        """Reads such a line."""
        return cls(**{**body, "steps": [Step(**step) for step in body["steps"]]})


class Failure(Exception):
    """A run that came to nothing: `outcome` and `reason` of its result."""

    def __init__(self, outcome: str, reason: str) -> None:
        super().__init__(outcome, reason)
        self.outcome, self.reason = outcome, reason


def environment() -> dict[str, str]:
    """The same surroundings for all: no GPU, no network, as many threads as the cores that are owned."""
    threads = str(len(os.sched_getaffinity(0)))
    return os.environ | {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",
    }


def run_graft(spec: dict[str, Any], job: Job) -> dict[str, Any]:
    """Runs `python -m jobs train` as users do; returns `steps`, `first_timed` and `peak_rss_bytes` of a `Result`. Raises `Failure`.

    The peak is that of the process until its last step: what it exports afterwards is not compared with anything.
    """
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        out, path = Path(folder) / "out", Path(folder) / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        readings: list[tuple[float, int]] = []
        _run([sys.executable, "-m", "jobs", "train", str(path), "--out", str(out)], Path(folder) / "log", LIMIT_SECONDS, readings)
        steps, last = steps_of_events(list(read_events(out / "events.jsonl")), job)
    peak = max((reading for when, reading in readings if when <= last), default=0)
    return {"steps": steps, "first_timed": job.untimed, "peak_rss_bytes": peak}


def steps_of_events(events: Sequence[Event], job: Job) -> tuple[list[Step], float]:
    """The steps that a run's events tell of, and when the last one ended (seconds since the epoch).

    A step lasts from the end of the one before it. Raises `Failure` where other rows were trained on than the job says.
    """
    before = next((event.t for event in events if event.kind == "phase" and event.data["name"] == "training"), 0.0)
    steps: list[Step] = []
    told = 0
    for event in events:
        if event.kind != "step":
            continue
        tokens = job.tokens(len(steps))
        told += tokens
        if event.data["tokens"] != told:
            raise Failure("failed", f"{event.data['tokens']} tokens after step {len(steps) + 1}; the job has {told}")
        steps.append(Step(seconds=event.t - before, loss=event.data["loss"], tokens=tokens))
        before = event.t
    if len(steps) < job.untimed + job.timed:
        raise Failure("failed", f"{len(steps)} steps of {job.untimed + job.timed}")
    return steps, before


def run_peer(trainer: Trainer, python: Path, job: Path) -> dict[str, Any]:
    """Runs a peer's script in its environment; returns the measured fields of a `Result`. Raises `Failure`."""
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        command = [str(python), "-m", f"benchmarks.peers.{trainer.script}", str(job), *trainer.flags]
        printed = _run(command, Path(folder) / "log", COMPILED_LIMIT_SECONDS if trainer.compiled else LIMIT_SECONDS)
    return peer_result(printed)


def peer_result(printed: str) -> dict[str, Any]:
    """The measured fields of a `Result` from what a peer's meter printed. Raises `Failure` where it ended before its time."""
    lines = [json.loads(line) for line in printed.splitlines()]
    if not lines or "peak_rss_bytes" not in lines[-1]:
        raise Failure("failed", f"it ended after {len(lines)} steps")
    steps = [Step(seconds=line["seconds"], loss=line["loss"], tokens=line["tokens"]) for line in lines[:-1]]
    return {"steps": steps, **lines[-1]}


def _run(command: list[str], log: Path, limit: float, readings: list[tuple[float, int]] | None = None) -> str:
    """Runs a command in a session of its own, and returns its standard output; `readings` gets (time, peak bytes) as it goes."""
    with log.open("w", encoding="utf-8") as errors, (log.parent / "printed").open("w+", encoding="utf-8") as printed:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=printed, stderr=errors, start_new_session=True
        )
        try:
            code = _wait(process, time.monotonic() + limit, readings)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        if code:
            raise Failure("failed", log.read_text(encoding="utf-8", errors="replace").strip()[-_REASON_CHARACTERS:])
        printed.seek(0)
        return printed.read()


def _wait(process: subprocess.Popen[bytes], until: float, readings: list[tuple[float, int]] | None) -> int:
    while (code := process.poll()) is None:
        if time.monotonic() > until:
            raise Failure("timeout", "its time was over")
        if readings is not None:
            readings.append((time.time(), _peak(process.pid)))
        time.sleep(_POLL_SECONDS)
    return code


def _peak(process: int) -> int:
    """Its peak so far; 0 once it has ended (a process that nobody has waited for yet has no memory left to tell of)."""
    try:
        return peak_rss_bytes(process)
    except (OSError, IndexError):
        return 0
