"""Small data for each task, and runs on it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.data.token_cache import TokenCache
from jobs.run import execute
from jobs.spec import RunSpec, Task

THINGS = ("red apple", "blue sky", "green leaf", "red sun", "blue sea", "green grass")


def _question(number: int, thing: str) -> dict[str, Any]:
    context = f"{'zz ' * (number % 12)}the {thing} is here. {'yy ' * 30}"
    return {"question": "which one?", "context": context, "answers": {"text": [thing], "answer_start": [context.index(thing)]}}


ROWS: dict[Task, Callable[[int, str], dict[str, Any]]] = {
    "sequence_classification": lambda number, thing: {"text": f"a {thing} {number}", "label": thing.split()[0]},
    "regression": lambda number, thing: {"text": f"a {thing}", "text_b": f"no {number % 3}", "score": THINGS.index(thing) / 2},
    "question_answering": _question,
    "multiple_choice": lambda number, thing: {
        "question": f"which is {thing}?", "choices": ["other", thing] if number % 2 else [thing, "none", "other"], "answer": number % 2
    },
    "seq2seq_lm": lambda number, thing: {"prompt": f"say {thing}", "completion": thing.split()[0]},
}  # fmt: skip


def write_rows(folder: Path, task: Task, name: str, count: int) -> Path:
    """A file of rows of a task."""
    path = folder / f"{task}-{name}.jsonl"
    path.write_text("".join(json.dumps(ROWS[task](number, THINGS[number % len(THINGS)])) + "\n" for number in range(count)))
    return path


def make_spec(folder: Path, model: Path, task: Task, **training: Any) -> RunSpec:
    """40 steps of LoRA on 48 rows, the losses of its 12 test rows to be compared."""
    limit = {"max_length": 64} if task == "question_answering" else {}
    values = {"learning_rate": 3e-3, "max_steps": 40, "epochs": 100, "micro_batch": 8, "gradient_accumulation": 1, "precision": "float32"}
    return RunSpec.from_json(
        {
            "name": "tiny",
            "task": task,
            "model": {"path": str(model), "name": "acme/tiny"},
            "data": {"train": str(write_rows(folder, task, "train", 48)), "test": str(write_rows(folder, task, "test", 12))},
            "method": {"id": "lora", "settings": {"rank": 4}},
            "training": {**values, **limit, **training},
            "evaluation": {"max_new_tokens": 8, "samples": 2},
        }
    )


@dataclass
class Ran:
    """What a run told."""

    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of the events of one kind."""
        return [data for found, data in self.events if found == kind]

    def measured(self, model: str, split: str = "test") -> dict[str, Any]:
        """The last `eval` of a model."""
        return [data for data in self.of("eval") if (data["model"], data["split"]) == (model, split)][-1]

    def samples(self) -> list[dict[str, Any]]:
        """The tuned model's answers after the training."""
        last = max(data["step"] for data in self.of("step"))
        return [data for data in self.of("sample") if (data["model"], data["step"]) == ("tuned", last)]


def run(spec: RunSpec, out: Path, resume: Sequence[Path] = (), *, until: int | None = None) -> Ran:
    """A whole run in this process, or one that is asked to end after step `until`."""
    ran = Ran()

    def emit(kind: str, /, **data: Any) -> None:
        ran.events.append((kind, data))

    out.mkdir(parents=True, exist_ok=True)
    execute(spec, out, list(resume), emit=emit, stop=lambda: until is not None and len(ran.of("step")) >= until, cache=TokenCache(None))
    return ran
