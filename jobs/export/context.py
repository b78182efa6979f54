"""What the export needs of a finished training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jobs.export.parity import Read, causal_logits
from jobs.methods.entry import Method, SettingValue
from jobs.methods.hooks import Hooks
from jobs.models.heads import CAUSAL, Head
from jobs.spec import RunSpec


class Emit(Protocol):
    """`EventWriter.emit`, or anything like it."""

    def __call__(self, kind: Any, /, **data: Any) -> Any:
        """Writes one event."""


@dataclass(frozen=True)
class ExportContext:
    """A trained model and what is known of it.

    - `model`: the trained model in memory: a `PeftModel`, or a plain model after full fine-tuning.
    - `hooks`: those of the method, which know how its adapter is written.
    - `out`: the attempt's folder; artifacts go to `out / "artifacts"`.
    - `results`: the data of the last `eval` events on the held-out rows, by model: `base` and `tuned`.
    - `probe`: the same of the general probe.
    - `facts`: for the model card, see `jobs.export.card.model_card`.
    - `held_out`: held-out rows, on which a merged model's logits are compared with the trained model's; `logits` reads one of them.
    - `head`: how the task's model is loaded.
    - `precision`: the run's arithmetic, resolved: `float32`, `bfloat16` or `float16`.
    - `reevaluate(model, name)`: measures a plain transformers model just as base and tuned were measured, emits its `eval` event with
      `name` as its model, and returns that event's data.
    - `made`: where the weights were not trained, how they came about ("composed of ..."); `facts` then say the rest.
    """

    model: Any
    tokenizer: Any
    spec: RunSpec
    method: Method
    settings: Mapping[str, SettingValue]
    hooks: Hooks
    base_folder: Path
    out: Path
    results: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]
    held_out: Sequence[Any]
    precision: str
    emit: Emit
    reevaluate: Callable[[Any, str], Mapping[str, Any]]
    probe: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    head: Head = CAUSAL
    logits: Read = causal_logits
    made: str = ""

    @property
    def base_bits(self) -> int:
        """The bits of the base's weights while it was trained upon."""
        return self.method.base_bits(self.settings)
