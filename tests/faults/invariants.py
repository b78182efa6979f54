"""I1 to I8: what holds of every run whatever happens to it, read from what was recorded: its history, its rows, its files.

Each check gives what is wrong, in words; nothing is an answer too. `violations` asks all of them, of runs that may still be under way.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from django.conf import settings

from tests.faults.waiting import written
from webapp.quotas.models import ComputeUse
from webapp.runs import lease
from webapp.runs.models import Artifact, Record, Run, RunEvent
from webapp.runs.states import ACTIVE, TERMINAL, TRANSITIONS, State

# Of a lease that has run out, with the clocks of production: until the reaper has taken the run.
LEASE_LIMIT_SECONDS = 90.0
# Lines of history that tell of something else than a move.
_NO_MOVES = ("asked: ", "extended by ")


def one_training(run: Run) -> list[str]:
    """I1: an attempt's training writes nothing once the next attempt has begun, by the host's one clock."""
    attempts = [(number, events) for number, events in written(_var(), run).items() if events]
    return [
        f"attempt {before} wrote {old[-1]['t'] - new[0]['t']:.2f} s into attempt {after}"
        for (before, old), (after, new) in pairwise(attempts)
        if old[-1]["t"] > new[0]["t"]
    ]


def one_device(runs: Iterable[Run]) -> list[str]:
    """I1 again: no worker trains two runs at one time, whatever the runs."""
    spans: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for run in runs:
        owners = dict(RunEvent.objects.filter(run=run, to_state=State.STARTING).values_list("attempt", "actor"))
        for attempt, events in written(_var(), run).items():
            if events:
                spans[owners[attempt]].append((events[0]["t"], events[-1]["t"], f"{run.name} attempt {attempt}"))
    return [
        f"{owner} trained {first[2]} and {second[2]} at one time"
        for owner, found in spans.items()
        for first, second in pairwise(sorted(found))
        if first[1] > second[0]
    ]


def never_back(run: Run) -> list[str]:
    """I2: every line of the history is a move that the state machine has, from where the one before it led; attempts only grow."""
    found, last = [], None
    for event in _moves(run):
        frm = last.to_state if last else ""
        if event.from_state != frm or (frm and event.to_state not in TRANSITIONS[State(frm)]):
            found.append(f"line {event.seq}: {event.from_state} -> {event.to_state} after {frm or 'nothing'}")
        if last and event.attempt - last.attempt != int(event.to_state == State.STARTING):
            found.append(f"line {event.seq}: attempt {event.attempt} after {last.attempt}")
        last = event
    if last is None or (last.to_state, last.attempt) != (run.state, run.attempt):
        found.append(f"the row says {run.state} in attempt {run.attempt}, its history {last}")
    return found


def one_end(run: Run) -> list[str]:
    """I3: a run ends once; what ended is begun again by a person's word alone."""
    found = [
        f"line {after.seq} follows the end in line {before.seq} without a word"
        for before, after in pairwise(_moves(run))
        if before.to_state in TERMINAL and after.detail not in ("retry", "extended") and not after.detail.startswith("extended by")
    ]
    if (run.state in TERMINAL) != (run.finished_at is not None):
        found.append(f"it is {run.state}, and finished at {run.finished_at}")
    return found


def whole_artifacts(run: Run) -> list[str]:
    """I4: a run that succeeded has the artifacts that its training told of, byte for byte; one that never did has none."""
    rows = {artifact.name: artifact for artifact in Artifact.objects.filter(run=run)}
    if not RunEvent.objects.filter(run=run, to_state=State.SUCCEEDED).exists():
        return [f"{name} is published by a run that is {run.state}" for name in rows]
    if run.state != State.SUCCEEDED:
        return []
    told = {event["data"]["name"] for event in written(_var(), run)[run.attempt] if event["kind"] == "artifact"}
    mine = {name for name, artifact in rows.items() if artifact.attempt == run.attempt}
    found = [f"artifacts {sorted(mine)} in place of {sorted(told)}"] if mine != told else []
    return found + [f"{name} is not as it was written" for name in mine if not _is_whole(rows[name])]


def no_holes(run: Run) -> list[str]:
    """I5: of every attempt the archive has the first events without a hole, in order and as they were written; of one that has come to
    its end in order, all of them. Where an attempt went on from a checkpoint, every step up to it has its point.
    """
    found = []
    points: set[int] = set()
    files = written(_var(), run)
    for attempt in range(1, run.attempt + 1):
        rows = list(Record.objects.filter(run=run, attempt=attempt).order_by("pk").values_list("seq", "kind", "data"))
        lines = [(event["seq"], event["kind"], event["data"]) for event in files.get(attempt, [])]
        if [row[0] for row in rows] != list(range(1, len(rows) + 1)):
            found.append(f"attempt {attempt}: events {[row[0] for row in rows]}")
        if rows != lines[: len(rows)]:
            found.append(f"attempt {attempt}: the archive differs from the file")
        if run.state == State.SUCCEEDED and attempt == run.attempt and len(rows) != len(lines):
            found.append(f"attempt {attempt}: {len(rows)} of {len(lines)} events")
        start = next((data.get("start_step") or 0 for _, kind, data in rows if kind == "plan"), 0)
        if missing := set(range(1, start + 1)) - points:
            found.append(f"attempt {attempt} began after step {start}, without points of {sorted(missing)}")
        points |= {data["step"] for _, kind, data in rows if kind == "step"}
    return found


def fresh_lease(run: Run, *, most_seconds: float = LEASE_LIMIT_SECONDS) -> list[str]:
    """I6: nobody holds a run whose lease has been over for so long."""
    old = Run.objects.filter(pk=run.pk, state__in=ACTIVE, lease_expires_at__lt=lease.after(-most_seconds))
    return [f"held by {run.owner} with a lease of {run.lease_expires_at}"] if old.exists() else []


def ledger_agrees(run: Run) -> list[str]:
    """I7: the ledger of device hours has one line for each attempt, open while it is under way and at no other time."""
    uses = list(ComputeUse.objects.filter(run_id=run.pk).order_by("attempt").values_list("attempt", "ended_at"))
    found = [] if [attempt for attempt, _ in uses] == list(range(1, run.attempt + 1)) else [f"lines for the attempts {uses}"]
    opened = [attempt for attempt, ended in uses if ended is None]
    if opened != ([run.attempt] if run.state in ACTIVE else []):
        found.append(f"it is {run.state} in attempt {run.attempt}, and the ledger counts on for {opened}")
    return found


def nothing_left(run: Run) -> list[str]:
    """I8, files: of a run that nobody holds no folder or file is left that was only needed while it was at work."""
    if run.state in ACTIVE:
        return []
    names = ("attempt-*/tmp", "attempt-*/leash", "attempt-*/checkpoints/.tmp-*")
    return [f"{path.relative_to(run.folder)} is left" for name in names for path in sorted(run.folder.glob(name))]


CHECKS: dict[str, Callable[[Run], list[str]]] = {
    "I1": one_training,
    "I2": never_back,
    "I3": one_end,
    "I4": whole_artifacts,
    "I5": no_holes,
    "I6": fresh_lease,
    "I7": ledger_agrees,
    "I8": nothing_left,
}


def violations(runs: Iterable[Run], *, leave_out: Iterable[str] = ()) -> list[str]:
    """What is wrong with these runs, each with the invariant's number; rows are read anew."""
    fresh = list(Run.objects.filter(pk__in=[run.pk for run in runs]).order_by("created_at"))
    checks = {name: check for name, check in CHECKS.items() if name not in leave_out}
    found = [f"{name} {run.name}: {wrong}" for run in fresh for name, check in checks.items() for wrong in check(run)]
    return found + [f"I1 {wrong}" for wrong in (one_device(fresh) if "I1" in checks else [])]


def _moves(run: Run) -> list[Any]:
    """The lines of history that moved the run; a wish leaves a line too."""
    return [
        event
        for event in RunEvent.objects.filter(run=run).order_by("seq")
        if not (event.from_state == event.to_state and event.detail.startswith(_NO_MOVES))
    ]


def _is_whole(artifact: Artifact) -> bool:
    try:
        body = artifact.file.read_bytes()
    except OSError:
        return False
    return (len(body), hashlib.sha256(body).hexdigest()) == (artifact.bytes, artifact.sha256)


def _var() -> Path:
    return Path(settings.GRAFT_VAR)
