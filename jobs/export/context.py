"""What the export needs of a finished training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jobs.methods.entry import Method, SettingValue
from jobs.spec import RunSpec


class Emit(Protocol):
    """`EventWriter.emit`, or anything like it."""

    def __call__(self, kind: Any, /, **data: Any) -> Any: ...


@dataclass(frozen=True)
class ExportContext:
    """A trained model and what is known of it.

    `model` is the trained model in memory: a `PeftModel`, or a plain model after full fine-tuning. `held_out` holds the token ids of
    held-out rows, one list a row: the rows on which a merged model's logits are compared with the trained model's. `results` holds the
    data of the final `eval` events by model, `base` and `tuned`. `facts` goes into the model card; what it may hold stands in
    `jobs.export.card`. `precision` is the run's arithmetic, resolved: `float32` or `bfloat16`. `reevaluate(model, name)` measures a plain transformers model as base and tuned were measured, emits its `eval`
    event under `name`, and returns that event's data. Artifacts go to `out / "artifacts"`.
    """

    model: Any
    tokenizer: Any
    spec: RunSpec
    method: Method
    settings: Mapping[str, SettingValue]
    base_folder: Path
    out: Path
    results: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    held_out: Sequence[Sequence[int]]
    precision: str
    emit: Emit
    reevaluate: Callable[[Any, str], Mapping[str, Any]]
