"""Claim the run whose turn it is. A doorbell names a run, but only says that there is work: who comes first is decided here."""

from __future__ import annotations

from django.db import transaction

from webapp.quotas.services.limits import holds
from webapp.runs import lease
from webapp.runs.models import Run, Worker
from webapp.runs.order import turns


def claim_next(queue: str, owner: str) -> Run | None:
    """The run of `queue` whose turn it is, claimed for `owner`. None where there is none, where every team that waits is at a limit, or
    where the worker is draining.
    """
    with transaction.atomic():
        if Worker.objects.filter(name=owner, draining=True).exists():
            return None
        for turn in turns(queue):
            # Once more under the quota's lock: of two workers that take runs of one team at the same time, the second counts the first.
            if turn.hold is not None or holds([turn.team_id], lock=True):
                continue
            if run := lease.claim(turn.run_id, owner):
                return run
    return None
