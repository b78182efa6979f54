"""`make bench-training`: Graft and the trainers that everybody uses, in turn, on the same rows in the same steps.

Every trainer sees the ids and labels of Graft's own encoding (the model's chat template for chats, loss on the answer alone) in Graft's
own order: batch 8, no accumulation, no gradient checkpointing, AdamW without weight decay, constant rate, clipping at 1. The first two
steps are not timed; a compiled trainer warms up until it compiles no more. Nothing is evaluated or saved between the steps.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers import ROOT, EnvironmentUnavailable, ensure_env
from benchmarks.summary import summary, table
from benchmarks.trainers import TRAINERS, Failure, Result, Trainer, run_graft, run_peer
from benchmarks.workloads import SETTLE_SECONDS, Case, graft_spec, load_names, load_records, make_job, write_job, write_rows
from jobs.models.device import probe
from jobs.models.loading import load_tokenizer

ROUNDS = 3
_METHODS = (("lora", "bf16"), ("qlora", "bf16"), ("full", "bf16"), ("lora", "fp32"), ("full", "fp32"))
_QUICK_CASE = "lora-bf16"
_QUICK_TRAINERS = ("graft", "hf-padded", "hf-flattening")


@dataclass
class Bench:
    """One bench: what it runs, and the file that its results are appended to."""

    folder: Path
    model: Path
    data: Path | None
    file: Path
    results: list[Result]
    engine: dict[str, bool]
    settle_seconds: float = SETTLE_SECONDS

    def run(self, cases: Sequence[Case], trainers: Sequence[Trainer], rounds: int) -> None:
        """Runs what the results do not hold yet, case by case, in rounds whose order rotates; round 0 only fills Graft's caches."""
        pythons = self._environments(trainers)
        usable = [trainer for trainer in trainers if trainer.ours or trainer.environment in pythons]
        tokenizer = load_tokenizer(self.model)
        for case in cases:
            records = load_records(case.load, self.data)
            job = make_job(case, records, tokenizer, self.model, self.settle_seconds)
            job_path, rows_path = self.folder / f"{case.name}.job.json", self.folder / f"{case.load}.jsonl"
            write_job(job, job_path)
            write_rows(records, rows_path)
            spec = graft_spec(case, rows_path, self.model, self.engine)
            for round_, trainer in turns(usable, rounds):
                if case.method not in trainer.methods or self._known(case.name, trainer, round_):
                    continue
                try:
                    measured = run_graft(spec, job) if trainer.ours else run_peer(trainer, pythons[trainer.environment], job_path)
                    self._add(Result(case.name, trainer.name, round_, "ok", **measured))
                except Failure as failure:
                    self._add(Result(case.name, trainer.name, round_, failure.outcome, failure.reason))
            print(f"\n{table(self.results, case.name)}\n", flush=True)

    def _environments(self, trainers: Sequence[Trainer]) -> dict[str, Path]:
        """The Python of each environment that is needed; one that does not install is told of, and its trainers are left out."""
        found: dict[str, Path] = {}
        for name in dict.fromkeys(trainer.environment for trainer in trainers if not trainer.ours):
            try:
                found[name] = ensure_env(name)
            except EnvironmentUnavailable as reason:
                print(f"left out: {reason}", flush=True)
        return found

    def _known(self, case: str, trainer: Trainer, round_: int) -> bool:
        """Whether this run is there already, or the trainer has failed at this case before."""
        return any(
            one.case == case and one.trainer == trainer.name and (one.round == round_ or one.outcome != "ok") for one in self.results
        )

    def _add(self, result: Result) -> None:
        self.results.append(result)
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result.to_json()) + "\n")
        rate = f"{summary_rate(result):.0f} tokens/s, {result.peak_rss_bytes / 1e6:.0f} MB" if result.outcome == "ok" else result.reason
        print(f"{result.case}  round {result.round}  {result.trainer}: {result.outcome}, {rate}", flush=True)


def summary_rate(result: Result) -> float:
    """Tokens/s of one run, over all its timed steps."""
    return sum(step.tokens for step in result.timed) / sum(step.seconds for step in result.timed)


def turns(trainers: Sequence[Trainer], rounds: int) -> Iterator[tuple[int, Trainer]]:
    """(round, trainer) in order. Round 0 is Graft's alone; compiled trainers, which warm up for minutes, run in the first round only."""
    yield from ((0, trainer) for trainer in trainers if trainer.ours)
    for round_ in range(1, rounds + 1):
        start = (round_ - 1) % len(trainers)
        yield from ((round_, trainer) for trainer in [*trainers[start:], *trainers[:start]] if not trainer.compiled or round_ == 1)


def chosen_cases(data: Path | None, only: str) -> list[Case]:
    """The cases whose name begins with one of `only` (separated by commas); all where it is empty."""
    cases = [Case(method, precision, load) for method, precision in _METHODS for load in load_names(data)]
    wanted = tuple(name for name in only.split(",") if name)
    return [case for case in cases if not wanted or case.name.startswith(wanted)]


def chosen_trainers(peers: str) -> list[Trainer]:
    """Graft and the peers named, by trainer or by environment, separated by commas; all where `peers` is empty."""
    wanted = {name for name in peers.split(",") if name}
    unknown = wanted - {name for trainer in TRAINERS for name in (trainer.name, trainer.environment)}
    if unknown:
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(one.name for one in TRAINERS if not one.ours)}")
    return [trainer for trainer in TRAINERS if trainer.ours or not wanted or wanted & {trainer.name, trainer.environment}]


def open_results(folder: Path, *, resume: bool) -> tuple[Path, list[Result]]:
    """The file to append to, and what it holds: the newest one where `resume`, else a new one that begins with what machine this is."""
    files = sorted(folder.glob("results-*.jsonl"))
    if resume and files:
        lines = [json.loads(line) for line in files[-1].read_text(encoding="utf-8").splitlines()]
        return files[-1], [Result.from_json(line) for line in lines if "case" in line and line["outcome"] == "ok"]
    path = folder / f"results-{datetime.now(UTC):%Y%m%d-%H%M%S}.jsonl"
    path.write_text(json.dumps({"machine": machine()}) + "\n", encoding="utf-8")
    return path, []


def sample_model() -> Path:
    """The model that `make setup` leaves: SmolLM2-135M-Instruct."""
    return Path(os.environ.get("GRAFT_SAMPLE_MODEL") or ROOT / "var" / "sample-model").resolve()


def machine() -> dict[str, Any]:
    """What the figures belong to: the processor, the cores owned, the versions, and Graft's commit."""
    import torch

    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "processor": probe()["name"],
        "threads": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": commit,
    }


def main(argv: list[str] | None = None) -> int:
    """Runs the bench and prints its tables and ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--data", type=Path, help="the folder with arc_easy/ and gsm8k/; rows of examples/tickets where absent")
    parser.add_argument("--only", default="", help="cases by the beginning of their names, such as lora-bf16-arc")
    parser.add_argument("--peers", default="", help="peers by name or environment, such as hf,trl")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--quick", action="store_true", help="LoRA in bf16 against HF Trainer alone, one round")
    parser.add_argument("--resume", action="store_true", help="go on with the newest file of results")
    parser.add_argument("--settle", type=float, default=SETTLE_SECONDS, help="seconds that a compiled peer may warm up")
    parser.add_argument("--without", default="", help="fast ways of the engine to switch off, such as compile,shared_prefix")
    options = parser.parse_args(argv)
    folder = ROOT / "var" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    only, trainers, rounds = options.only, chosen_trainers(options.peers), options.rounds
    if options.quick:
        only, rounds = only or _QUICK_CASE, 1
        trainers = [trainer for trainer in trainers if trainer.name in _QUICK_TRAINERS]
    cases = chosen_cases(options.data, only)
    if not cases:
        raise SystemExit(f"no case begins with '{only}'; there are {', '.join(one.name for one in chosen_cases(options.data, ''))}")
    file, results = open_results(folder, resume=options.resume)
    engine = {name: False for name in options.without.split(",") if name}
    bench = Bench(folder, sample_model(), options.data, file, results, engine, options.settle)
    bench.run(cases, trainers, rounds)
    print(json.dumps({"machine": machine(), "results": str(file.relative_to(ROOT)), **summary(bench.results)}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
