"""`make methods-study`: the same rows, model and steps under several methods and seeds; what each costs, and what it reaches.

Rows are of ARC-Easy where `DATA=` names their folder, else of `examples/tickets`. A question of ARC-Easy is asked without its choices, loss
on the right answer's text alone, and scored by which choice is the likeliest for its length, since a base as small as SmolLM2-135M knows
some answers but is at chance where it must name a letter. Every run is `python -m jobs train`; what is not given stands at the
method's own defaults, learning rate included. Results are kept by run, so that a study goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from benchmarks.peers import ROOT
from benchmarks.training import machine, sample_model
from benchmarks.workloads import BATCH, write_splits
from jobs.data.records import read_records
from jobs.events import read_events
from jobs.methods.registry import get_method

METHODS = "full,lora,qlora,dora,vera,ia3,block_sparse,bottleneck_adapter,loha,oft"
SEEDS = "0,1,2"
ROWS, TEST_ROWS, EPOCHS = 192, 200, 1.0


@dataclass(frozen=True)
class Study:
    """What all runs share. `without` names fast ways of the engine to switch off, separated by commas."""

    rows: int
    test_rows: int
    epochs: float
    learning_rate: float | None
    without: str = ""


@dataclass(frozen=True)
class Outcome:
    """One run: `seconds` of its steps, `peak_bytes` resident while it trained, the held-out figures of base and tuned model."""

    method: str
    seed: int
    trainable: int
    seconds: float
    peak_bytes: int
    base: dict[str, Any]
    tuned: dict[str, Any]


def records(data: Path | None, split: str) -> list[dict[str, Any]]:
    """The rows of a split, `train` or `test`, as Graft reads them."""
    if data is None:
        name = "train.jsonl" if split == "train" else "test.jsonl"
        return [dict(record) for _, record in read_records(ROOT / "examples" / "tickets" / name, None)]
    lines = (data / "arc_easy" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [_with_choices(json.loads(line)) for line in lines if line.strip()]


def _with_choices(row: dict[str, Any]) -> dict[str, Any]:
    answers = dict(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
    completions = {label: f" {text}" for label, text in answers.items()}
    return {
        "prompt": f"Question: {row['question']}\nAnswer:",
        "completion": completions[row["answerKey"]],
        "choices": list(completions.values()),
    }


def run(method: str, seed: int, study: Study, folder: Path) -> Outcome:
    """Trains once. Raises `RuntimeError` with the end of what the run said where it fails."""
    spec = {
        "name": f"{method}-{seed}",
        "model": {"path": str(sample_model())},
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "validation_share": 0.0},
        "method": {"id": method},
        "training": {"epochs": study.epochs, "micro_batch": BATCH, "gradient_accumulation": 1, "learning_rate": study.learning_rate},
        "engine": {name: False for name in study.without.split(",") if name},
        "evaluation": {"generate": False, "samples": 0, "rows": study.test_rows, "retention": False},
        "export": {"merge": "none"},
        "seed": seed,
    }
    with tempfile.TemporaryDirectory(prefix="graft-study-") as name:
        path, out = Path(name) / "spec.json", Path(name) / "out"
        path.write_text(json.dumps(spec), encoding="utf-8")
        command = [sys.executable, "-m", "jobs", "train", str(path), "--out", str(out)]
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-400:])
        return _outcome(method, seed, out / "events.jsonl")


def _outcome(method: str, seed: int, path: Path) -> Outcome:
    events = list(read_events(path))
    steps = [event.data for event in events if event.kind == "step"]
    plan = next(event.data for event in events if event.kind == "plan")
    figures = {event.data["model"]: event.data for event in events if event.kind == "eval" and event.data["split"] == "test"}
    memory = max(step["memory"].get("resident_bytes") or step["memory"]["reserved_bytes"] for step in steps)
    return Outcome(method, seed, plan["trainable_parameters"], steps[-1]["elapsed_seconds"], memory, figures["base"], figures["tuned"])


def accuracy(figures: dict[str, Any]) -> float:
    """The share of right answers by likelihood: of choices by their length where rows have choices, else of labels."""
    found = figures["choice_accuracy_normalised"]
    return float(figures["label_accuracy"] if found is None else found)


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a line a method, means over the seeds, the spread as a standard deviation."""
    lines = [
        "| method | learning rate | trainable parameters | s | peak MB | held-out loss | accuracy | seeds |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(one.method for one in outcomes):
        found, method = [one for one in outcomes if one.method == name], get_method(name)
        seconds, peak = median(one.seconds for one in found), median(one.peak_bytes for one in found) / 1e6
        losses, rates = [one.tuned["loss"] for one in found], [accuracy(one.tuned) for one in found]
        lines.append(
            f"| {method.name} | {method.learning_rate:g} | {found[0].trainable:,} | {seconds:.0f} | {peak:.0f} | {_spread(losses)} "
            f"| {_spread(rates)} | {len(found)} |"
        )
    bases = {accuracy(one.base) for one in outcomes if get_method(one.method).base_bits({}) == 16}
    lines.append(f"\nBefore training: {', '.join(f'{rate:.3f}' for rate in sorted(bases))} (16-bit base).")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def missing(methods: Sequence[str], seeds: Sequence[int], known: Sequence[Outcome]) -> Iterator[tuple[str, int]]:
    """What is still to run, seed by seed, so that a study that is cut short has all methods."""
    done = {(one.method, one.seed) for one in known}
    return ((method, seed) for seed in seeds for method in methods if (method, seed) not in done)


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing of the study and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods_study", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder with arc_easy/; rows of examples/tickets where absent")
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--seeds", default=SEEDS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    parser.add_argument("--learning-rate", type=float, help="in place of each method's own")
    parser.add_argument("--without", default="", help="fast ways of the engine to switch off, such as one_gemm_lora")
    parser.add_argument(
        "--results", type=Path, default=ROOT / "var" / "bench" / "methods-study.jsonl", help="the file of results, gone on with"
    )
    options = parser.parse_args(argv)
    study = Study(options.rows, options.test_rows, options.epochs, options.learning_rate, options.without)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    lines = options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else []
    known = [Outcome(**body["outcome"]) for body in map(json.loads, lines) if Study(**body["study"]) == study]
    methods, seeds = options.methods.split(","), [int(seed) for seed in options.seeds.split(",")]
    with tempfile.TemporaryDirectory(prefix="graft-study-rows-") as name:
        folder = Path(name)
        write_splits(partial(records, options.data), {"train": study.rows, "test": study.test_rows}, folder)
        for method, seed in missing(methods, seeds, known):
            outcome = run(method, seed, study, folder)
            known.append(outcome)
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"study": asdict(study), "machine": machine(), "outcome": asdict(outcome)}) + "\n")
            print(
                f"{method} seed {seed}: loss {outcome.tuned['loss']:.4f}, accuracy {accuracy(outcome.tuned):.3f}, {outcome.seconds:.0f} s",
                flush=True,
            )
    print(f"\n{table(known)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
