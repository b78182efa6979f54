"""What the usual methods need of a device's memory for one model, by kind of device: the page of a model compares it with the workers.

Free of torch. It is the estimate of `jobs.planning.estimate` for a run with the defaults, on rows of one length, on a device that was not
calibrated; a run of its own data is estimated by its own rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jobs.device import Device
from jobs.errors import UserError
from jobs.planning.batches import RowLengths
from jobs.planning.estimate import estimate
from jobs.planning.shape import ModelShape, read_shape
from jobs.spec import RunSpec, Task

METHODS = ("full", "lora", "qlora")
ROW_TOKENS = 512
ROWS = 1000
# Halves of micro-batch 8 with the accumulation doubled: the same steps, less memory.
MICRO_BATCHES = (8, 1)
_KINDS: tuple[tuple[str, bool], ...] = (("cpu", True), ("cpu", False), ("cuda", True), ("cuda", False))
_ENDLESS = 2**62


@dataclass(frozen=True)
class Need:
    """Memory at the peak in bytes of `method` on a device of `kind` with or without bfloat16, for micro-batches of `micro_batch` rows of
    `row_tokens`. `bytes` is None where the method does not run there, and `refusal` says why.
    """

    method: str
    kind: str
    bfloat16: bool
    micro_batch: int
    row_tokens: int
    bytes: int | None
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        """The need as a JSON object."""
        return asdict(self)


def needs_of(folder: Path, task: Task) -> list[Need]:
    """The needs of the model in `folder`, trained for `task`. Raises `UserError`: `model_missing`, `model_unusable`."""
    return list(_needs(read_shape(folder), task))


def _needs(shape: ModelShape, task: Task) -> Iterator[Need]:
    row_tokens = min(ROW_TOKENS, shape.context or ROW_TOKENS)
    lengths = RowLengths.of([row_tokens], rows=ROWS)
    for method in METHODS:
        for kind, bfloat16 in _KINDS:
            device: Device = {
                "kind": kind, "name": kind, "memory_bytes": _ENDLESS, "threads": 1, "bfloat16": bfloat16, "count": 1,
            }  # fmt: skip
            for micro_batch in MICRO_BATCHES:
                spec = _spec(method, task, micro_batch, row_tokens)
                try:
                    peak: int | None = estimate(spec, device, shape, lengths).memory.peak
                    refusal = ""
                except UserError as refused:
                    peak, refusal = None, refused.message
                yield Need(method, kind, bfloat16, micro_batch, row_tokens, peak, refusal)


def _spec(method: str, task: Task, micro_batch: int, row_tokens: int) -> RunSpec:
    return RunSpec.from_json(
        {
            "model": {"path": "model"},
            "data": {"train": "train.jsonl", "validation_share": 0.05},
            "task": task,
            "method": {"id": method},
            "training": {
                "micro_batch": micro_batch,
                "gradient_accumulation": 2 * MICRO_BATCHES[0] // micro_batch,
                "max_length": row_tokens,
            },
        }
    )
