"""`make bench-tokenize`: chats from a file to token ids with marks, Graft (cold, cached) and `datasets.map` in turn, on the same rows.

`DATA=` is a JSONL file of chats (`messages`); without it the rows of examples/tickets, repeated. Imports are not counted; reading the
file is, for all. The ids and marks of all ways are compared before anything is timed.
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
from pathlib import Path
from typing import Any

from benchmarks.peers import ROOT, ensure_env

TICKETS = ROOT / "examples" / "tickets" / "train.jsonl"
REPEATED_ROWS = 12_000
PEERS = ("each", "batched")


def main() -> None:
    """Runs all in turn, `--runs` times, and prints a JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenize", description=__doc__)
    parser.add_argument("--data", type=Path, help="a JSONL file of chats")
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("GRAFT_SAMPLE_MODEL") or ROOT / "var" / "sample-model"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--graft", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.graft:
        print(json.dumps(_graft(arguments.data, arguments.model, arguments.graft)))
        return
    python = ensure_env("hf")
    with tempfile.TemporaryDirectory() as folder:
        rows = arguments.data or _repeated(Path(folder) / "rows.jsonl")
        found = _alternate(rows, arguments.model.resolve(), python, arguments.runs, Path(folder))
    first = {name: runs[0] for name, runs in found.items()}
    digests = {run["digest"] for run in first.values()}
    if len(digests) != 1:
        sys.exit(f"the ways disagree: { {name: (run['rows'], run['tokens'], run['digest'][:8]) for name, run in first.items()} }")
    medians = {name: statistics.median(run["seconds"] for run in runs) for name, runs in found.items()}
    best = min(medians[f"datasets-{way}"] for way in PEERS)
    print(
        json.dumps(
            {
                "rows": first["graft-cold"]["rows"],
                "tokens": first["graft-cold"]["tokens"],
                "seconds": medians,
                "times_faster_than_best_peer": {name: best / medians[name] for name in ("graft-cold", "graft-cached")},
            },
            indent=2,
        )
    )


def _repeated(path: Path) -> Path:
    """The tickets over and over, each time with another number in the question, so that no row is like another."""
    lines = [json.loads(line) for line in TICKETS.read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for number in range(REPEATED_ROWS):
            first, *rest, answer = lines[number % len(lines)]["messages"]
            asked = [{**message, "content": f"{message['content']} ({number})"} for message in rest]
            file.write(json.dumps({"messages": [first, *asked, answer]}, ensure_ascii=False) + "\n")
    return path


def _alternate(rows: Path, model: Path, python: Path, runs: int, folder: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    cache = folder / "tokens"
    for _ in range(runs):
        shutil.rmtree(cache, ignore_errors=True)
        graft = [sys.executable, "-m", "benchmarks.tokenize", "--data", str(rows), "--model", str(model), "--graft", str(cache)]
        ways = {"graft-cold": graft, "graft-cached": graft}
        ways |= {f"datasets-{way}": [str(python), "-m", "benchmarks.peers.tokenize_rows", str(rows), str(model), way] for way in PEERS}
        for name, command in ways.items():
            environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
            done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
            found.setdefault(name, []).append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps({"way": name, **found[name][-1]}), file=sys.stderr, flush=True)
    return found


def _graft(rows: Path, model: Path, cache: Path) -> dict[str, Any]:
    """Graft's own way, as a run takes it."""
    from benchmarks.peers.tokenize_rows import digest_of
    from jobs.data.token_cache import TokenCache
    from jobs.models.loading import load_tokenizer
    from jobs.spec import DataSpec
    from jobs.training.rowsets import tokenise_rows

    tokenizer = load_tokenizer(model)
    spec = DataSpec(str(rows), validation_share=0.0)
    started = time.perf_counter()
    sets = tokenise_rows(
        spec, tokenizer, model_folder=model, loss_on="completion", seed=0, cache=TokenCache(cache), report=lambda done: None
    )
    seconds = time.perf_counter() - started
    store = sets.train.store
    whole = [store.row(number, 2**31 - 1) for number in range(len(store))]
    pairs = [(row.ids.tolist(), row.trained.tolist()) for row in whole]
    return {"seconds": seconds, "rows": len(store), "tokens": len(store.ids), "digest": digest_of(pairs)}


if __name__ == "__main__":
    main()
