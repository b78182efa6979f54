"""Whether the rank that `python -m jobs analyse` suggests is the best of a grid: `python -m benchmarks.rank_study`.

Each task is trained with LoRA at every rank of a grid, over seeds, with alpha twice the rank and everything else alike; the analysis sees
the same rows. Tasks of `examples/tickets`: `tickets` (a message to its label), `tickets-write` (a label to a message of it), `tickets-text`
(the messages as plain text); with `--data`: `arc` (ARC-Easy, scored by the likelihood of each choice) and `gsm8k`. What was run is kept, so
that a study may be run in parts (`--tasks --ranks --seeds`), and a part that is there already is not run again; other `--rows`,
`--steps` or `--method` are another study.
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
from statistics import mean, stdev
from typing import Any

from benchmarks import methods_study
from benchmarks.methods_study import accuracy
from benchmarks.peers import ROOT
from benchmarks.training import machine, sample_model
from benchmarks.workloads import BATCH, gsm8k_record, write_splits
from jobs.analysis.defaults import FILE
from jobs.data.encoding import Record
from jobs.events import read_events

RANKS, SEEDS, ROWS, TEST_ROWS, STEPS = "4,8,16,32,64,128", "0,1,2", 96, 60, 24
EXAMPLES, DATA_SETS = ("tickets", "tickets-write", "tickets-text"), ("tickets", "arc", "gsm8k")


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    method: str
    rows: int
    test_rows: int
    steps: int


@dataclass(frozen=True)
class Outcome:
    """One run: held-out loss and, where rows have labels or choices, the share of right answers; `seconds` of its steps."""

    task: str
    rank: int
    seed: int
    loss: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class Suggestion:
    """What the analysis of a task said."""

    task: str
    rank: int
    at_least: bool
    seconds: float


def records(task: str, split: str, data: Path | None) -> Sequence[Record]:
    """The rows of a task, `train` or `test`, as Graft reads them."""
    if task == "arc":
        return methods_study.records(data, split)
    if task == "gsm8k" and data is not None:
        lines = (data / "gsm8k" / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
        return [gsm8k_record(json.loads(line)) for line in lines if line.strip()]
    tickets = methods_study.records(None, split)
    return tickets if task == "tickets" else [_turned(record["messages"], task) for record in tickets]


def _turned(messages: Sequence[dict[str, str]], task: str) -> Record:
    """A message and its label, the other way round or without the label."""
    message, label = (next(one["content"] for one in messages if one["role"] == role) for role in ("user", "assistant"))
    return {"text": message} if task == "tickets-text" else {"prompt": f"A message of the kind {label}:\n", "completion": message}


def spec_of(study: Study, folder: Path, rank: int, seed: int) -> dict[str, Any]:
    """One run of the study."""
    return {
        "model": {"path": str(sample_model())},
        "data": {"train": str(folder / "train.jsonl"), "test": str(folder / "test.jsonl"), "validation_share": 0.0},
        "method": {"id": study.method, "settings": {"rank": rank, "alpha": 2.0 * rank}},
        "training": {"epochs": 1000.0, "max_steps": study.steps, "micro_batch": BATCH, "gradient_accumulation": 1},
        "evaluation": {"generate": False, "samples": 0, "rows": study.test_rows, "retention": False},
        "export": {"merge": "none"},
        "seed": seed,
    }


def train(study: Study, task: str, rank: int, seed: int, folder: Path) -> Outcome:
    """Trains once. Raises `RuntimeError` with the end of what the run said where it fails."""
    with tempfile.TemporaryDirectory(prefix="graft-study-") as name:
        out = Path(name) / "out"
        _command("train", spec_of(study, folder, rank, seed), "--out", str(out))
        events = list(read_events(out / "events.jsonl"))
    tuned = next(event.data for event in events if event.kind == "eval" and (event.data["split"], event.data["model"]) == ("test", "tuned"))
    seconds = [event.data["elapsed_seconds"] for event in events if event.kind == "step"][-1]
    scored = tuned["choice_accuracy_normalised"] is not None or tuned["label_accuracy"] is not None
    return Outcome(task, rank, seed, tuned["loss"], accuracy(tuned) if scored else None, seconds)


def analyse(study: Study, task: str, folder: Path) -> Suggestion:
    """The analysis of a task's rows, at the defaults of the command."""
    with tempfile.TemporaryDirectory(prefix="graft-study-") as name:
        _command("analyse", spec_of(study, folder, 16, 0), "--bits", "", "--out", name)
        found = json.loads((Path(name) / FILE).read_text(encoding="utf-8"))
    spectrum = found["spectrum"]
    return Suggestion(task, spectrum["suggested_rank"], spectrum["suggested_rank_is_at_least"], found["seconds"])


def _command(name: str, spec: dict[str, Any], *arguments: str) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as file:
        json.dump(spec, file)
        file.flush()
        command = [sys.executable, "-m", "jobs", name, file.name, *arguments]
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-400:])


def table(outcomes: Sequence[Outcome], suggestions: Sequence[Suggestion]) -> str:
    """Markdown: a line for each task and rank, means over the seeds with their standard deviation, and what the suggestion missed."""
    lines = ["| task | rank | held-out loss | accuracy | s | seeds |", "|---|---:|---:|---:|---:|---:|"]
    verdicts = []
    for task in dict.fromkeys(one.task for one in outcomes):
        mine = [one for one in outcomes if one.task == task]
        suggestion = next((one for one in suggestions if one.task == task), None)
        for rank in sorted({one.rank for one in mine}):
            same = [one for one in mine if one.rank == rank]
            rates = [one.accuracy for one in same if one.accuracy is not None]
            mark = " (suggested)" if suggestion and suggestion.rank == rank else ""
            seconds = mean(one.seconds for one in same)
            lines.append(
                f"| {task} | {rank}{mark} | {_spread([one.loss for one in same])} | {_spread(rates) if rates else '-'} | {seconds:.0f} "
                f"| {len(same)} |"
            )
        verdicts.append(_verdict(task, mine, suggestion))
    return "\n".join([*lines, "", *verdicts])


def _verdict(task: str, outcomes: Sequence[Outcome], suggestion: Suggestion | None) -> str:
    """How far the suggested rank is from the best, in loss, over the seeds that both have; paired, since seeds differ more than ranks."""
    if suggestion is None:
        return f"- {task}: not analysed."
    told = f"suggested {suggestion.rank}{' or more' if suggestion.at_least else ''} ({suggestion.seconds:.0f} s)"
    losses = {rank: {one.seed: one.loss for one in outcomes if one.rank == rank} for rank in {one.rank for one in outcomes}}
    best = min(losses, key=lambda rank: mean(losses[rank].values()))
    if suggestion.rank not in losses:
        return f"- {task}: {told}, which was not run; the best of those that were is {best}."
    if best == suggestion.rank:
        return f"- {task}: {told}, the best of the grid."
    shared = losses[best].keys() & losses[suggestion.rank].keys()
    gaps = [losses[suggestion.rank][seed] - losses[best][seed] for seed in shared]
    if not gaps:
        return f"- {task}: {told}, the best is {best}, and no seed has both."
    noise = stdev(gaps) if len(gaps) > 1 else None
    within = "" if noise is None else ", within what seeds differ" if mean(gaps) <= noise else ", which is a miss"
    return f"- {task}: {told}, the best is {best}: {_spread(gaps)} more loss than it{within}."


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def missing(tasks: Sequence[str], ranks: Sequence[int], seeds: Sequence[int], known: Sequence[Outcome]) -> Iterator[tuple[str, int, int]]:
    """What is still to run, seed by seed, so that a study that is cut short has all ranks."""
    done = {(one.task, one.rank, one.seed) for one in known}
    return ((task, rank, seed) for seed in seeds for task in tasks for rank in ranks if (task, rank, seed) not in done)


def main(argv: list[str] | None = None) -> int:
    """Runs what is missing of the study and prints its table."""
    options = _options(argv)
    study = Study(options.method, options.rows, options.test_rows, options.steps)
    tasks = options.tasks.split(",") if options.tasks else list(DATA_SETS if options.data else EXAMPLES)
    ranks, seeds = ([int(number) for number in text.split(",")] for text in (options.ranks, options.seeds))
    options.results.parent.mkdir(parents=True, exist_ok=True)
    kept = options.results.read_text(encoding="utf-8").splitlines() if options.results.exists() else []
    mine = [body for body in map(json.loads, kept) if body["study"] == asdict(study)]
    outcomes = [Outcome(**body["outcome"]) for body in mine if "outcome" in body]
    suggestions = [Suggestion(**body["suggestion"]) for body in mine if "suggestion" in body]

    def keep(kind: str, found: Outcome | Suggestion) -> None:
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"study": asdict(study), "machine": machine(), kind: asdict(found)}) + "\n")
        print(f"{kind}: {asdict(found)}", flush=True)

    with tempfile.TemporaryDirectory(prefix="graft-study-rows-") as name:
        folders = {task: Path(name) / task for task in tasks}
        for task, folder in folders.items():
            folder.mkdir()
            write_splits(partial(records, task, data=options.data), {"train": study.rows, "test": study.test_rows}, folder)
            if task not in {one.task for one in suggestions}:
                suggestions.append(analyse(study, task, folder))
                keep("suggestion", suggestions[-1])
        for task, rank, seed in missing(tasks, ranks, seeds, outcomes):
            outcomes.append(train(study, task, rank, seed, folders[task]))
            keep("outcome", outcomes[-1])
    print(f"\n{table([one for one in outcomes if one.task in tasks], suggestions)}\n")
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rank_study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder with arc_easy/ and gsm8k/; rows of examples/tickets alone where absent")
    parser.add_argument("--tasks", default="", help=f"{','.join(EXAMPLES)}; with --data {','.join(DATA_SETS)}")
    parser.add_argument("--ranks", default=RANKS)
    parser.add_argument("--seeds", default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--test-rows", type=int, default=TEST_ROWS)
    parser.add_argument("--method", default="lora", choices=("lora", "lora_8bit", "qlora"))
    results = ROOT / "var" / "bench" / "rank-study.jsonl"
    parser.add_argument("--results", type=Path, default=results, help="the file of results, gone on with")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
