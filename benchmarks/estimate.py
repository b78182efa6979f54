"""The estimate against what the engine really takes: `make bench-estimate`.

Full, LoRA and QLoRA on SmolLM2-135M, three lengths, two batch sizes: for each case the peak that `python -m jobs estimate` gives for the
training, and the one that `benchmarks.memory` measures of the engine's own allocations, in a process of its own. On a machine with a GPU
the same cases are measured by torch's CUDA allocator. Prints a table, the worst error, and one JSON object on the last line.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from jobs.cache import cache_folder
from jobs.geometry import default_folder
from jobs.models.device import probe
from jobs.planning.batches import RowLengths
from jobs.planning.calibration import Calibration, calibrate
from jobs.planning.estimate import estimate
from jobs.planning.shape import read_shape
from jobs.spec import load_spec

MODEL = Path(__file__).parents[1] / "var" / "sample-model"
METHODS = ("full", "lora", "qlora")
LENGTHS = (64, 256, 512)
MICRO_BATCHES = (2, 8)
STEPS = 3
WORDS = ("river", "stone", "window", "garden", "market", "ledger", "bright", "quiet", "number", "letter", "table", "engine")
CASE_SECONDS = 300
# What the estimate is held to.
LARGEST_ERROR = 0.1


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    method: str
    length: int
    micro_batch: int
    precision: str
    checkpointing: bool = False


@dataclass(frozen=True)
class Outcome:
    """What was estimated and what was measured: bytes at the peak of training, tokens a second of the last step."""

    case: Case
    estimated_bytes: int
    measured_bytes: int
    estimated_speed: float
    measured_speed: float

    @property
    def error(self) -> float:
        """Of the estimated bytes, as a share of the measured ones."""
        return self.estimated_bytes / self.measured_bytes - 1


def cases(methods: Iterable[str], lengths: Sequence[int], rows: Sequence[int], precision: str, *, checkpointing: bool) -> Iterator[Case]:
    """All of them, method by method."""
    for method, length, micro_batch in product(methods, lengths, rows):
        yield Case(method, length, micro_batch, precision, checkpointing)


def write_case(case: Case, folder: Path) -> Path:
    """The spec of a case and its rows: random words, longer than the maximum length, so that every row is cut there; half is answer."""
    chance = random.Random(0)  # noqa: S311 rows, not secrets
    rows = []
    for _ in range(STEPS * case.micro_batch):
        prompt = " ".join(chance.choice(WORDS) for _ in range(case.length // 2))
        rows.append({"prompt": prompt, "completion": " " + " ".join(chance.choice(WORDS) for _ in range(case.length))})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = {
        "model": {"path": str(MODEL)},
        "data": {"train": "rows.jsonl", "validation_share": 0},
        "method": {"id": case.method},
        "training": {
            "epochs": 2, "max_steps": STEPS + 1, "micro_batch": case.micro_batch, "gradient_accumulation": 1,
            "max_length": case.length, "precision": case.precision, "checkpoint_every_steps": 1000,
            "gradient_checkpointing": case.checkpointing,
        },
        "evaluation": {"generate": False, "retention": False},
        "export": {"merge": "none"},
    }  # fmt: skip
    path = folder / "spec.json"
    path.write_text(json.dumps(spec), encoding="utf-8")
    return path


def measured(spec: Path) -> dict[str, Any]:
    """What `benchmarks.memory` says of a spec, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.memory", str(spec), "--steps", str(STEPS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=CASE_SECONDS, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(f"{spec}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def outcome(case: Case, calibration: Calibration) -> Outcome:
    """Measures a case, and estimates it with the lengths and the share of labels that its rows really have."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_case(case, Path(folder))
        found, spec = measured(path), load_spec(path)
    plan = found["plan"]
    lengths = RowLengths.of([case.length], rows=plan["train_rows"], label_share=plan["label_tokens"] / plan["train_tokens"])
    wanted = estimate(spec, probe(), read_shape(MODEL), lengths, calibration=calibration, regions=default_folder())
    assert wanted.speed is not None
    return Outcome(case, wanted.memory.training, found["peak_bytes"], wanted.speed.tokens_per_second, found["tokens_per_second"][-1])


def line(found: Outcome) -> str:
    """A row of the table."""
    case, mebi = found.case, 2**20
    return (
        f"| {case.method} | {case.length} | {case.micro_batch} | {found.estimated_bytes / mebi:,.0f} | {found.measured_bytes / mebi:,.0f} "
        f"| {found.error:+.1%} | {found.estimated_speed:,.0f} | {found.measured_speed:,.0f} |"
    )


def main() -> int:
    """Runs the command; fails where an estimate is further off than `LARGEST_ERROR`."""
    parser = argparse.ArgumentParser(description="Hold the estimate of a run's memory against what is measured.")
    parser.add_argument("--methods", default=",".join(METHODS), help="methods, separated by commas (%(default)s)")
    parser.add_argument("--lengths", default=",".join(map(str, LENGTHS)), help="tokens a row, separated by commas (%(default)s)")
    parser.add_argument(
        "--rows", default=",".join(map(str, MICRO_BATCHES)), help="rows of a micro-batch, separated by commas (%(default)s)"
    )
    parser.add_argument("--checkpointing", action="store_true", help="with gradient checkpointing")
    parser.add_argument("--precision", default="auto", help="float32 or bfloat16; auto is what the device does best")
    arguments = parser.parse_args()
    device = probe()
    calibration = calibrate(cache_folder(), device, read_shape(MODEL))
    print(f"{device['kind']}: {device['name']}, {device['threads']} threads; calibrated in {calibration.probe_seconds:.1f} s")
    print("| method | tokens a row | rows | estimated MiB | measured MiB | error | estimated tokens/s | measured tokens/s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    found: list[Outcome] = []
    lengths, rows = ([int(number) for number in text.split(",")] for text in (arguments.lengths, arguments.rows))
    for case in cases(arguments.methods.split(","), lengths, rows, arguments.precision, checkpointing=arguments.checkpointing):
        found.append(outcome(case, calibration))
        print(line(found[-1]), flush=True)
    worst = max(found, key=lambda one: abs(one.error))
    print(f"worst: {worst.error:+.1%} ({worst.case.method}, {worst.case.length} tokens, {worst.case.micro_batch} rows)")
    print(json.dumps({"worst_error": worst.error, "cases": [asdict(one) | {"error": one.error} for one in found]}))
    return int(abs(worst.error) > LARGEST_ERROR)


if __name__ == "__main__":
    sys.exit(main())
