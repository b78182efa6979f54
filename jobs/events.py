"""The events of a run: one JSON object a line, versioned, numbered without holes within an attempt.

`{"v": 1, "seq": 412, "t": 1763805600.25, "kind": "step", "data": {...}}`. The file is the record: the supervisor ships it,
and whatever is lost on the way can be read from it again. `t` is seconds since the epoch; numbers that are not finite
are written as null, with `"nonfinite": true` beside them, since JSON has no NaN.

The data of each kind (all sizes in bytes, all times in seconds):

- `phase`: `name` (one of `PHASES`), `done`, `total` (or null), `unit` (`rows`, `bytes`, `tensors`, `steps`, `batches`, `widths`)
- `plan`: what will be done: `total_steps epochs steps_per_epoch start_step resumed_from train_rows validation_rows test_rows
  train_tokens label_tokens cut_rows trainable_parameters total_parameters micro_batch gradient_accumulation effective_batch
  max_length precision fresh_modules batching device` (`device`: `kind name memory_bytes threads`; `fresh_modules` of the base model began
  from nothing, a head as a rule: what is measured under them before the training is chance)
- `step`: `step epoch loss learning_rate gradient_norm tokens tokens_per_second elapsed_seconds eta_seconds memory`
  (`memory`: `resident_bytes` on CPU; `allocated_bytes reserved_bytes device_used_bytes device_total_bytes` on CUDA; there,
  as far as the driver says, `device` besides: `utilisation`, a share from 0 to 1, and `celsius`)
- `eval`: `step epoch split model loss perplexity token_accuracy exact_match label_accuracy choice_accuracy choice_accuracy_normalised
  metrics rows tokens seconds`; `split` is `validation`, `test` or `probe` (Graft's general probe, with `kinds`: for each kind of item
  `loss token_accuracy choice_accuracy choice_accuracy_normalised rows tokens`), `model` is `base`, `tuned`, `merged`, `dequantised` or
  `stored` (a fully trained model in the narrower dtype of its download); in a composition `tuned` is the composed adapter, and
  `adapter 1`, `adapter 2`, ... are those that it was made of; what was not measured is null. `metrics` holds the figures of
  tasks other than writing, by the ids of `jobs.tasks.registry` (`accuracy f1_macro f1_positive matthews`, `pearson spearman
  mean_squared_error`, `exact_match f1`; shares from 0 to 1): all of them on the held-out rows, some or none while the training goes on
- `sample`: `step model index prompt answer expected correct`; `base` before the first step, `tuned` at some steps of the training
  (`jobs.samples`) and once more, as all other models, at the end: the prompts in the training are among those
- `log`: `level message`
- `method`: `step name` and what a method shows of its inside. `block_scores` (block-sparse): `modules`, for each adapted module `layer
  module n m k mean replaced positions scores`: its grid has `n` rows of `m` blocks, of which `k` are selected, at `positions` (row * m +
  column, counted from 0) with `scores` of three digits, the highest first; `mean` is that of all `k`, `replaced` the share of slots whose
  block is another than at the start. Where a model has more than 12,000 selected blocks, each module shows its best ones alone.
  `composition`: `facts`, what was made of what: `combination`, its settings, `adapter 1` ... with their weights, and `modules rank lost`
  (the share of the updates' norm that cutting them to a rank left out) or, of blocks, `blocks conflicts conflict_share`.
  `analysis`: the object of docs/advice.md with floats of four digits and without singular values; each layer has besides
  `relative_error`, by bits
- `checkpoint`: `step path bytes seconds best`; `path` is relative to the run's output folder
- `artifact`: `name kind path bytes sha256 files details`; `kind` is `adapter`, `merged`, `model`, `analysis`; `files` lists what the zip
  holds (`name bytes sha256 offset`, the offset of the stored bytes within the zip), `details` the facts of the exported weights:
  `stored_dtype`, how far their logits are from the trained model's, what was measured on them
- `warning`: `code message remedy`
- `finished`: `outcome` (`succeeded`, `preempted`, `failed`), `step`, and where it failed `code message remedy where`
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, get_args

VERSION = 1
FSYNC_SECONDS = 1.0

Kind = Literal["phase", "plan", "step", "eval", "sample", "log", "method", "checkpoint", "artifact", "warning", "finished"]
KINDS: tuple[str, ...] = get_args(Kind)
PHASES = ("downloading", "loading", "tokenizing", "training", "evaluating", "analysing", "comparing", "merging", "saving")
# The figures of an `eval` event where none was measured.
NOTHING_MEASURED: dict[str, Any] = {
    "loss": None,
    "perplexity": None,
    "token_accuracy": None,
    "exact_match": None,
    "label_accuracy": None,
    "choice_accuracy": None,
    "choice_accuracy_normalised": None,
    "metrics": {},
}


@dataclass(frozen=True)
class Event:
    """One event; `seq` counts from 1 within an attempt."""

    seq: int
    t: float
    kind: str
    data: dict[str, Any]

    def to_line(self) -> str:
        """The event as one line of JSON, newline included."""
        body = {"v": VERSION, "seq": self.seq, "t": round(self.t, 3), "kind": self.kind, "data": self.data}
        return json.dumps(body, allow_nan=False, ensure_ascii=False, separators=(",", ":")) + "\n"

    @classmethod
    def from_line(cls, line: str | bytes) -> Event:
        """Reads one line. Raises `ValueError` where it is no event of a version that we know."""
        body = json.loads(line)
        if not isinstance(body, dict) or body.get("v") != VERSION or body.get("kind") not in KINDS:
            raise ValueError(f"not an event of version {VERSION}: {line[:200]!r}")
        return cls(seq=int(body["seq"]), t=float(body["t"]), kind=body["kind"], data=dict(body["data"]))


def finite(value: Any) -> Any:
    """`value` with every number that is not finite replaced by None, and the enclosing object marked `nonfinite`."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        cleaned = {key: finite(item) for key, item in value.items()}
        if any(isinstance(item, float) and not math.isfinite(item) for item in value.values()):
            cleaned["nonfinite"] = True
        return cleaned
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


class EventWriter:
    """Appends events to a file: every line flushed at once, fsynced at most once a second and at the end.

    A process that continues in the same file goes on with its numbering. `before` is called when an event has its time and is not written
    yet: whoever finds there that this process must end ends it, so that no event of a later time is written.
    """

    def __init__(self, path: Path, before: Callable[[], object] = bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        last = 0
        if path.exists():
            for event in read_events(path):
                last = event.seq
        self._seq = last
        self._before = before
        self._file: IO[str] = path.open("a", encoding="utf-8")
        self._synced = time.monotonic()

    def emit(self, kind: Kind, /, **data: Any) -> Event:
        """Writes one event and returns it. Raises `OSError`."""
        self._seq += 1
        event = Event(seq=self._seq, t=time.time(), kind=kind, data=finite(data))
        self._before()
        self._file.write(event.to_line())
        self._file.flush()
        if kind == "finished" or time.monotonic() - self._synced >= FSYNC_SECONDS:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()
        return event

    def close(self) -> None:
        """Fsyncs and closes the file."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def read_events(path: Path, offset: int = 0) -> Iterator[Event]:
    """The complete events from byte `offset` on; a last line without its newline is still being written and is left out."""
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield Event.from_line(line)
