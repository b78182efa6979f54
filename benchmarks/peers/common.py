"""What the script of every peer needs: the job that it is given, and a meter of its steps. Runs in the peer's own environment."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

IGNORED = -100
# A compiled trainer has settled once so many steps in a row compiled nothing.
SETTLED_STEPS = 3


@dataclass(frozen=True)
class Job:
    """The same work for every trainer, as `benchmarks.jobs` writes it.

    `rows`: `input_ids` and `labels` of equal length, `IGNORED` where a token is not trained on. `steps`: the row numbers of each step,
    in order, more of them than are run. `untimed` steps come first, `timed` ones count. `settle_seconds`: how long a compiled trainer
    may warm up.
    """

    model: str
    method: str
    precision: str
    learning_rate: float
    rank: int
    alpha: int
    seed: int
    batch: int
    untimed: int
    timed: int
    settle_seconds: float
    rows: list[dict[str, list[int]]]
    steps: list[list[int]]

    @classmethod
    def read(cls, path: Path) -> Job:
        """Reads a job file."""
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    @property
    def examples(self) -> list[dict[str, list[int]]]:
        """The rows in the order of the steps, for a trainer that takes them one after the other."""
        return [self.rows[index] for step in self.steps for index in step]

    def tokens(self, step: int) -> int:
        """Real tokens of step number `step` (from 0), whatever padding a trainer adds."""
        return sum(len(self.rows[index]["input_ids"]) for index in self.steps[step])


class Meter:
    """Writes a JSON line for every step on standard output, and one about the whole at the end.

    A step lasts from the end of the one before it, so that making the batch counts. Whatever a library prints goes to standard error.
    """

    def __init__(self, job: Job, *, compiled: bool = False) -> None:
        self._job, self._compiled = job, compiled
        self._out: IO[str] = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        self._done = self._calm = self._graphs = 0
        self._first_timed: int | None = None if compiled else job.untimed
        self._began = self._last = time.perf_counter()

    def begin(self) -> None:
        """The training starts now."""
        self._began = self._last = time.perf_counter()

    def step(self, loss: float) -> bool:
        """A step has ended, with its mean loss per label token. True where the training is to end."""
        now = time.perf_counter()
        self._write(step=self._done + 1, seconds=now - self._last, loss=loss, tokens=self._job.tokens(self._done))
        self._done += 1
        self._last = now
        if self._first_timed is None:
            self._settle(now)
            return False
        if self._done < min(self._first_timed + self._job.timed, len(self._job.steps)):
            return False
        self._write(first_timed=self._first_timed, settled=self._settled, peak_rss_bytes=peak_rss_bytes())
        return True

    @property
    def _settled(self) -> bool:
        return not self._compiled or self._calm >= SETTLED_STEPS

    def _settle(self, now: float) -> None:
        """Looks whether the compiler has come to rest, or its time is up."""
        from torch._dynamo.utils import counters

        graphs = counters["stats"]["unique_graphs"]
        self._calm = self._calm + 1 if graphs == self._graphs else 0
        self._graphs = graphs
        if self._done >= self._job.untimed and (self._settled or now - self._began > self._job.settle_seconds):
            self._first_timed = self._done

    def _write(self, **line: Any) -> None:
        self._out.write(json.dumps(line) + "\n")
        self._out.flush()


def peak_rss_bytes(process: int | str = "self") -> int:
    """The largest resident set that a process has had so far (`VmHWM`), in bytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def training_arguments(job: Job, out: str) -> dict[str, Any]:
    """`TrainingArguments` of transformers that say the same as Graft's spec, for all trainers that are built on its own."""
    return {
        "output_dir": out,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "max_steps": len(job.steps),
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": job.precision == "bfloat16",
        "use_cpu": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": job.seed,
    }


def parse(script: str, **flags: str) -> tuple[Job, dict[str, bool]]:
    """The command line of a peer's script: the job file, and flags with their explanations."""
    import argparse

    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.peers.{script}")
    parser.add_argument("job", type=Path)
    for name, explanation in flags.items():
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=explanation)
    arguments = vars(parser.parse_args(sys.argv[1:]))
    return Job.read(arguments.pop("job")), arguments
