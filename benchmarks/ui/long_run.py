"""A run of many recorded steps, as rows in the database: what an engine would have told, without the training."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from webapp.runs.models import Run

STEPS = 100_000
STEP_SECONDS = 0.4
DEVICE = {"kind": "cuda", "name": "A100", "memory_bytes": 40_000_000_000, "threads": 8, "bfloat16": True, "count": 1}


def record(run: Run, steps: int = STEPS, *, keep: bool = True) -> Run:
    """Archives so many steps with their evaluations and checkpoints, folds what the page's header shows, and has the copy of the curves
    written as the ingest of a real run does (unless not `keep`). Gives the run as it is then: finished.
    """
    from django.utils.timezone import now

    from jobs.events import Event
    from webapp.runs.fold import fold
    from webapp.runs.models import Record, Run
    from webapp.runs.services import points

    summary: dict[str, Any] = {}
    rows: list[Record] = []
    for seq, (kind, data) in enumerate(events(steps), 1):
        if kind != "step" or data["step"] > steps - 500:
            summary = fold(summary, Event(seq, 0.0, kind, data))
        at = STEP_SECONDS * seq
        rows.append(Record(run=run, attempt=1, seq=seq, kind=kind, step=data.get("step"), at=at, data=data))
    Record.objects.bulk_create(rows, batch_size=5000)
    Run.objects.filter(pk=run.pk).update(
        state="succeeded", attempt=1, summary=summary, last_step=steps, total_steps=steps, started_at=now(), finished_at=now()
    )
    run.refresh_from_db()
    if keep:
        points.keep(run)
    return run


def events(steps: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Kind and data, in order: noise on a falling loss, a spike now and then, one step that was not finite."""
    dice = random.Random(3)  # noqa: S311 - the same rows every time
    plan = {"total_steps": steps, "epochs": 3.0, "steps_per_epoch": steps / 3, "start_step": 0, "train_rows": 16 * steps // 3}
    yield "plan", {**plan, "trainable_parameters": 4_884_480, "total_parameters": 139_399_488, "precision": "bfloat16", "device": DEVICE}
    yield "phase", {"name": "training", "done": 0, "total": steps, "unit": "steps"}
    for step in range(1, steps + 1):
        yield "step", _step(dice, step, steps)
        if step % max(1, steps // 100) == 0:
            loss = 0.3 + 2.2 * math.exp(-4 * step / steps)
            yield "eval", {"step": step, "epoch": 3 * step / steps, "split": "validation", "model": "tuned", "loss": loss, "rows": 200}
            yield "checkpoint", {"step": step, "path": f"checkpoints/step-{step:08d}", "bytes": 58_000_000, "seconds": 0.3, "best": True}
    yield "finished", {"outcome": "succeeded", "step": steps}


def _step(dice: random.Random, step: int, steps: int) -> dict[str, Any]:
    broken = step == steps // 2
    loss = 0.25 + 2.6 * math.exp(-5 * step / steps) + dice.gauss(0, 0.08) + (3.0 if step % 9973 == 0 else 0.0)
    body: dict[str, Any] = {
        "step": step,
        "epoch": 3 * step / steps,
        "loss": None if broken else loss,
        "learning_rate": 1e-4 * (1 + math.cos(math.pi * step / steps)),
        "gradient_norm": None if broken else (0.4 + 2 * math.exp(-3 * step / steps)) * math.exp(dice.gauss(0, 0.3)),
        "tokens": 4096 * step,
        "tokens_per_second": 3400.0 + dice.gauss(0, 90),
        "elapsed_seconds": STEP_SECONDS * step,
        "eta_seconds": STEP_SECONDS * (steps - step),
        "memory": {
            "allocated_bytes": 9_000_000_000 + dice.randrange(2_000_000_000),
            "reserved_bytes": 14_000_000_000,
            "device_used_bytes": 15_500_000_000 + dice.randrange(100_000_000),
            "device_total_bytes": DEVICE["memory_bytes"],
        },
        "device": {"utilisation": min(1.0, max(0.0, dice.gauss(0.93, 0.03))), "celsius": 61.0 + dice.randrange(8)},
    }
    return {**body, "nonfinite": True} if broken else body
