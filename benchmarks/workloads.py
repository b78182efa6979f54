"""The work that all trainers are given: rows of two data sets, encoded once by Graft, in the order in which Graft trains on them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.peers import ROOT
from benchmarks.peers.common import IGNORED, Job
from jobs.data.encoding import Record, encode_records
from jobs.data.records import read_records
from jobs.training.order import Order, permutation

SEED = 0
BATCH = 8
ROWS = 64
MAX_LENGTH = 2048
# What a row is trained on by, and what an evaluation tells answers apart by.
TRAINED, MARKS = ("messages", "prompt", "completion", "text"), ("choices", "label")
UNTIMED = 2
TIMED = 6
# A compiled trainer goes round the same rows while it warms up.
MOST_STEPS = 400
SETTLE_SECONDS = 480.0
RANK, ALPHA = 16, 32
LEARNING_RATES = {"lora": 2e-4, "qlora": 2e-4, "full": 2e-5}
PRECISIONS = {"bf16": "bfloat16", "fp32": "float32"}


@dataclass(frozen=True)
class Case:
    """One thing to measure: a method in a precision on a load."""

    method: str
    precision: str
    load: str

    @property
    def name(self) -> str:
        """As `ONLY=` names it: `lora-bf16-arc`."""
        return f"{self.method}-{self.precision}-{self.load}"


def arc_record(row: dict[str, Any]) -> Record:
    """A row of ARC-Easy as a chat: the question with its choices, and the right one, which alone is trained on."""
    choices = list(zip(row["choices"]["label"], row["choices"]["text"], strict=True))
    question = "\n".join(f"{label}) {text}" for label, text in choices)
    answer = f"The correct answer is {row['answerKey']}) {dict(choices)[row['answerKey']]}."
    return _chat(f"Question: {row['question']}\n\n{question}", answer)


def gsm8k_record(row: dict[str, Any]) -> Record:
    """A row of GSM8K as a chat: the question, and the worked answer, which alone is trained on."""
    return _chat(row["question"], row["answer"])


def _chat(question: str, answer: str) -> Record:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


_DATA_SETS: dict[str, tuple[str, Callable[[dict[str, Any]], Record]]] = {
    "arc": ("arc_easy/train.jsonl", arc_record),
    "gsm8k": ("gsm8k/train.jsonl", gsm8k_record),
}
_EXAMPLES = {"tickets": "train.jsonl", "tickets-plain": "prompt_completion.jsonl.gz"}


def load_names(data: Path | None) -> list[str]:
    """The loads there are: ARC-Easy and GSM8K where their folder is given, else chats and plain prompts of Graft's own examples."""
    return list(_DATA_SETS if data else _EXAMPLES)


def load_records(load: str, data: Path | None) -> list[Record]:
    """`ROWS` rows of a load, drawn by `SEED`; where it has fewer, as many as fill whole batches."""
    if data:
        name, record_of = _DATA_SETS[load]
        lines = (data / name).read_text(encoding="utf-8").splitlines()
        everything: list[Record] = [record_of(json.loads(line)) for line in lines if line.strip()]
    else:
        everything = [record for _, record in read_records(ROOT / "examples" / "tickets" / _EXAMPLES[load], None)]
    return drawn(everything, min(ROWS, len(everything)) // BATCH * BATCH)


def drawn(everything: Sequence[Record], count: int) -> list[Record]:
    """`count` of the rows, or all where there are fewer, drawn by `SEED`: once for all that is compared."""
    return [everything[index] for index in permutation(SEED, 0, len(everything))[:count]]


def write_splits(records: Callable[[str], Sequence[Record]], counts: Mapping[str, int], folder: Path) -> None:
    """Draws so many rows of each split, and writes them with the marks of an evaluation into `folder`, a file a split."""
    for split, count in counts.items():
        write_rows(drawn(records(split), count), folder / f"{split}.jsonl", MARKS)


def write_rows(records: Iterable[Record], path: Path, marks: Sequence[str] = ()) -> None:
    """Writes the rows as the JSON lines that Graft trains on, and of what else they carry the `marks`."""
    kept = [{key: record[key] for key in (*TRAINED, *marks) if key in record} for record in records]
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept), encoding="utf-8")


def make_job(case: Case, records: list[Record], tokenizer: Any, model: Path, settle_seconds: float = SETTLE_SECONDS) -> Job:
    """The work of a case as every peer reads it: the ids and labels of Graft's own encoding, in Graft's own order."""
    encoded = encode_records(records, tokenizer, max_length=MAX_LENGTH)
    if encoded.cut or encoded.dropped:
        raise ValueError(
            f"{encoded.cut} rows of the load '{case.load}' are longer than {MAX_LENGTH} tokens, {encoded.dropped} have no label"
        )
    rows = [
        {
            "input_ids": row.ids.tolist(),
            "labels": [int(one) if trained else IGNORED for one, trained in zip(row.ids, row.trained, strict=True)],
        }
        for row in encoded.rows
    ]
    return Job(
        model=str(model),
        method=case.method,
        precision=PRECISIONS[case.precision],
        learning_rate=LEARNING_RATES[case.method],
        rank=RANK,
        alpha=ALPHA,
        seed=SEED,
        batch=BATCH,
        untimed=UNTIMED,
        timed=TIMED,
        settle_seconds=settle_seconds,
        rows=rows,
        steps=list(_steps(len(rows), MOST_STEPS)),
    )


def _steps(rows: int, count: int) -> Iterator[list[int]]:
    for micro_batches in islice(Order(rows, BATCH, 1, SEED).micro_batches(0, count), count):
        yield [index for micro_batch in micro_batches for index in micro_batch]


def graft_spec(case: Case, rows: Path, model: Path, engine: dict[str, bool] | None = None) -> dict[str, Any]:
    """The same work as a spec of Graft: nothing held out, evaluated, merged or checkpointed between the steps.

    `engine` switches fast ways of the engine off.
    """
    adapter = {"rank": RANK, "alpha": ALPHA, "dropout": 0.0, "targets": "all-linear"}
    return {
        "name": case.name,
        "model": {"path": str(model)},
        "data": {"train": str(rows), "validation_share": 0.0},
        "method": {"id": case.method, "settings": {} if case.method == "full" else adapter},
        "training": {
            "epochs": UNTIMED + TIMED,
            "max_steps": UNTIMED + TIMED,
            "learning_rate": LEARNING_RATES[case.method],
            "schedule": "constant",
            "warmup_share": 0.0,
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "micro_batch": BATCH,
            "gradient_accumulation": 1,
            "max_length": MAX_LENGTH,
            "precision": PRECISIONS[case.precision],
            "gradient_checkpointing": False,
            "checkpoint_every_steps": 1_000_000,
        },
        "engine": engine or {},
        "evaluation": {"generate": False, "samples": 0, "retention": False},
        "export": {"merge": "none"},
        "seed": SEED,
    }


def write_job(job: Job, path: Path) -> None:
    """Writes a job file for the peers' scripts."""
    path.write_text(json.dumps(asdict(job)), encoding="utf-8")
