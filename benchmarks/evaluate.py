"""`make bench-evaluate`: what measuring a model takes: the general probe, labels by likelihood, decoding with and without an adapter.

In each precision: the probe; the first rows of examples/tickets with every label as a choice, the prompt shared and a row for each choice;
greedy decoding behind a short prompt by the base, with a LoRA adapter (r 16, all linear layers) upon it, and with the adapter added in.
Each is done once uncounted; what is told is the median of `--runs`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers import ROOT
from jobs.data.encoding import encode_records
from jobs.data.records import read_records
from jobs.evaluation import measure_probe
from jobs.evaluation.generation import Answer, answers
from jobs.evaluation.likelihood import Asked, log_likelihoods
from jobs.evaluation.probe import load_probe
from jobs.models.opened import Opened, open_model
from jobs.training.checks import choose_forward
from jobs.training.loss import dataset_loss

ROWS = ROOT / "examples" / "tickets" / "test.jsonl"
PROMPT = "The old lighthouse stood at the end of the pier. Every evening the keeper climbed the stairs and lit the lamp. One night"
RANK = 16


def main() -> None:
    """Measures and prints a JSON object: figures by precision."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("GRAFT_SAMPLE_MODEL") or ROOT / "var" / "sample-model"))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=40, help="rows whose labels are scored")
    parser.add_argument("--new-tokens", type=int, default=48)
    arguments = parser.parse_args()
    found = {precision: measure(precision, arguments) for precision in ("bfloat16", "float32")}
    print(json.dumps({"threads": torch.get_num_threads(), "rows": arguments.rows, "figures": found}, indent=2))


def measure(precision: str, arguments: argparse.Namespace) -> dict[str, float]:
    """The figures of one precision: `..._seconds`, `..._tokens_per_second`."""
    opened = open_model(arguments.model, None, precision=precision)
    together = label_questions(opened, arguments.rows)
    apart = [Asked(one.prompt, [answer]) for one in together for answer in one.continuations]
    with opened.computing():
        found = {
            "probe_seconds": seconds(lambda: probe(opened), arguments.runs),
            "labels_shared_seconds": seconds(lambda: log_likelihoods(opened.model, together), arguments.runs),
            "labels_apart_seconds": seconds(lambda: log_likelihoods(opened.model, apart), arguments.runs),
        }
        return {"labels": float(len(together[0].continuations)), **found, **decoding(opened, arguments.new_tokens, arguments.runs)}


def seconds(work: Callable[[], Any], runs: int) -> float:
    """The median time of some work, after once uncounted."""
    work()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def label_questions(opened: Opened, rows: int) -> list[Asked]:
    """The prompts of the first rows as an evaluation renders them, each with all labels of the file behind it."""
    records = [record for _, record in read_records(ROWS, None)]
    ids = {label: opened.tokenizer(label, add_special_tokens=False)["input_ids"] for label in sorted({row["label"] for row in records})}
    prompts = [
        opened.tokenizer.apply_chat_template(row["messages"][:-1], add_generation_prompt=True, return_dict=False) for row in records[:rows]
    ]
    return [Asked(prompt, list(ids.values())) for prompt in prompts]


def probe(opened: Opened) -> dict[str, Any]:
    """The general probe, as a run measures it."""
    rows = encode_records(load_probe()["prose"], opened.tokenizer).rows
    forward = choose_forward(opened.model, rows, dtype=opened.dtype, device=opened.device)[0]
    return measure_probe(opened.model, opened.tokenizer, loss_of=lambda rows: dataset_loss(forward, rows))


def decoding(opened: Opened, new_tokens: int, runs: int) -> dict[str, float]:
    """New tokens a second of the base, with an adapter, and with it added in; and the seconds that adding takes."""
    from peft import LoraConfig, get_peft_model

    prompt = opened.tokenizer(PROMPT)["input_ids"]

    def rate(model: Any) -> float:
        kept: list[Answer] = []
        taken = seconds(lambda: kept.extend(answers(model, opened.tokenizer, [prompt], max_new_tokens=new_tokens)), runs)
        return kept[-1].tokens / taken

    found = {"base_tokens_per_second": rate(opened.model)}
    torch.manual_seed(0)
    adapted = get_peft_model(opened.model, LoraConfig(r=RANK, target_modules="all-linear", init_lora_weights=False)).eval()
    found["adapter_tokens_per_second"] = rate(adapted)
    started = time.perf_counter()
    merged = adapted.merge_and_unload()
    return {**found, "adding_seconds": time.perf_counter() - started, "added_tokens_per_second": rate(merged)}


if __name__ == "__main__":
    main()
