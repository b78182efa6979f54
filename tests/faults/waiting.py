"""Waiting for a run to come somewhere, and what is read from its traces afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.flow.site import Site, wait_for
from webapp.runs.models import Artifact, Record, Run, RunEvent
from webapp.runs.states import TERMINAL, TRANSITIONS, State

# The clocks that a site has when nothing is set (webapp/settings/env.py).
PRODUCTION = {
    "lease_seconds": 60, "heartbeat_seconds": 10, "self_fence_seconds": 45, "reap_grace_seconds": 15, "stop_grace_seconds": 60,
    "cancel_grace_seconds": 10, "desired_poll_seconds": 1, "dispatch_seconds": 1, "doorbell_repeat_seconds": 30,
    "worker_forget_seconds": 60,
}  # fmt: skip


def with_production_clocks(site: Site) -> None:
    """What is started from now on has the clocks of production."""
    site.environment.update({f"GRAFT_{name.upper()}": str(value) for name, value in PRODUCTION.items()})


def behave(site: Site, run: Run, options: str) -> None:
    """Has the run's training go so, whatever its worker's trainer does otherwise."""
    folder = site.var / "behave"
    folder.mkdir(exist_ok=True)
    (folder / str(run.pk)).write_text(options)


def state_of(run: Run) -> str:
    return str(Run.objects.values_list("state", flat=True).get(pk=run.pk))


def until(run: Run, state: State, seconds: float = 30) -> Run:
    wait_for(lambda: state_of(run) == state, seconds)
    run.refresh_from_db()
    return run


def until_step(run: Run, step: int, *, attempt: int = 1, seconds: float = 40) -> None:
    wait_for(lambda: Run.objects.filter(pk=run.pk, attempt=attempt, state=State.RUNNING, last_step__gte=step).exists(), seconds)


def running_again(run: Run, attempt: int, seconds: float = 40) -> float:
    """Waits until the attempt runs; gives the moment (`time.monotonic`)."""
    wait_for(lambda: Run.objects.filter(pk=run.pk, attempt=attempt, state=State.RUNNING).exists(), seconds, every=0.02)
    return time.monotonic()


def written(var: Path, run: Run) -> dict[int, list[dict[str, Any]]]:
    """What each attempt's child wrote into its own file, whether anybody read it or not."""
    found = {}
    for folder in sorted((var / "runs" / str(run.pk)).glob("attempt-*"), key=lambda folder: int(folder.name.partition("-")[2])):
        lines = (folder / "events.jsonl").read_bytes().splitlines(keepends=True) if (folder / "events.jsonl").exists() else []
        found[int(folder.name.partition("-")[2])] = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return found


def overlaps(var: Path, run: Run) -> int:
    """How many attempts wrote something after the next one had begun, by the host's one clock."""
    attempts = [events for events in written(var, run).values() if events]
    return sum(before[-1]["t"] > after[0]["t"] for before, after in pairwise(attempts))


def stale_writes(site: Site, run: Run) -> int:
    """Rows, stream entries and artifacts of an attempt that came after those of a later one."""
    entries: Any = site.redis().xrange(f"graft:run:{run.pk}")
    stream = [int(name.split(b"-")[0]) for name, _fields in entries]
    rows = list(Record.objects.filter(run=run).order_by("pk").values_list("attempt", flat=True))
    artifacts = Artifact.objects.filter(run=run).exclude(attempt=Run.objects.values_list("attempt", flat=True).get(pk=run.pk)).count()
    return _falls(stream) + _falls(rows) + artifacts


def _falls(numbers: list[int]) -> int:
    return sum(after < before for before, after in pairwise(numbers))


def holes(run: Run) -> int:
    """Points that are missing, doubled or out of order in the archive, over all attempts."""
    wrong = 0
    for attempt in range(1, run.attempt + 1):
        seqs = list(Record.objects.filter(run=run, attempt=attempt).order_by("pk").values_list("seq", flat=True))
        wrong += sum(found != expected for expected, found in enumerate(seqs, 1))
    return wrong


def wrong_in_history(run: Run) -> list[str]:
    """What in a run's history is no path of the state machine, goes back in attempts, or is a second end."""
    moves = list(_moves(run))
    found = [f"{frm} -> {to}" for frm, to, _attempt in moves if frm and to not in TRANSITIONS[State(frm)]]
    attempts = [attempt for _frm, _to, attempt in moves]
    found += ["attempts go back"] * (attempts != sorted(attempts))
    found += ["two ends"] * (sum(to in TERMINAL for _frm, to, _attempt in moves) > 1)
    return found


def _moves(run: Run) -> Iterator[tuple[str, str, int]]:
    """The lines of history that moved the run; a wish leaves a line too."""
    for event in RunEvent.objects.filter(run=run).order_by("seq"):
        if not event.detail.startswith("asked:"):
            yield event.from_state, event.to_state, event.attempt
