"""On which worker a model fits, by method: what it was found to need (`jobs.planning.needs`) against what each worker has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils.timezone import now

from jobs.methods.registry import get_method
from jobs.planning.estimate import USABLE_SHARE
from jobs.planning.needs import METHODS, MICRO_BATCHES
from webapp.catalog.models import BaseModel
from webapp.runs.models import Worker
from webapp.settings.env import ENV
from webapp.work.outbox import TRAIN_QUEUE


@dataclass(frozen=True)
class Verdict:
    """What a method needs on a device: `bytes` at the peak, None where it does not run there, which `refusal` says.

    `fits` is None where there is no device to compare with; `micro_batch` is the largest of those looked at that fits, else the least.
    """

    bytes: int | None
    fits: bool | None
    micro_batch: int
    refusal: str = ""

    @property
    def usual(self) -> bool:
        """Whether it is the micro-batch that a form begins with."""
        return self.micro_batch == MICRO_BATCHES[0]


@dataclass(frozen=True)
class Row:
    """A worker, or without one a kind of device; a verdict for each of `METHODS`."""

    name: str
    device: dict[str, Any]
    worker: Worker | None
    verdicts: list[Verdict]


@dataclass(frozen=True)
class Fit:
    """The table: `methods` in words, a row for each worker that lives; where there is none, one for each kind of device."""

    methods: list[str]
    rows: list[Row]
    row_tokens: int
    compared: bool


def fit_of(model: BaseModel) -> Fit | None:
    """The table of a model that has been described, else None. One query."""
    needs = model.description.get("needs")
    if not needs:
        return None
    since = now() - timedelta(seconds=ENV.worker_forget_seconds)
    workers = [worker for worker in Worker.objects.filter(queue=TRAIN_QUEUE, seen_at__gt=since).order_by("name") if worker.device]
    rows = [Row(worker.name, worker.device, worker, _verdicts(needs, worker.device)) for worker in workers]
    return Fit(
        methods=[get_method(name).name for name in METHODS],
        rows=rows or [Row("", device, None, _verdicts(needs, device)) for device in _kinds(needs)],
        row_tokens=needs[0]["row_tokens"],
        compared=bool(rows),
    )


def _kinds(needs: Sequence[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """A device of each kind, as today's are: with bfloat16, of no memory that is known."""
    return [{"kind": kind, "bfloat16": True, "memory_bytes": None} for kind in dict.fromkeys(need["kind"] for need in needs)]


def _verdicts(needs: Sequence[dict[str, Any]], device: dict[str, Any]) -> list[Verdict]:
    return [_verdict([need for need in needs if need["method"] == method and _is_of(need, device)], device) for method in METHODS]


def _is_of(need: dict[str, Any], device: dict[str, Any]) -> bool:
    return bool(need["kind"] == device.get("kind") and need["bfloat16"] == bool(device.get("bfloat16")))


def _verdict(needs: Sequence[dict[str, Any]], device: dict[str, Any]) -> Verdict:
    """Of the micro-batches, the largest first, the first that fits; where none does, the least."""
    if not needs:
        return Verdict(None, None, MICRO_BATCHES[0])
    memory = device.get("memory_bytes")
    verdict = Verdict(None, None, MICRO_BATCHES[0])
    for need in needs:
        if need["bytes"] is None:
            return Verdict(None, False, need["micro_batch"], need["refusal"])
        fits = None if memory is None else need["bytes"] <= USABLE_SHARE * memory
        verdict = Verdict(need["bytes"], fits, need["micro_batch"])
        if fits is not False:
            return verdict
    return verdict
