"""Write down that a run has ended, with its doorbell, in the transaction that ends it: what is committed is told, sooner or later."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from webapp.notices.models import RunEnding
from webapp.work.outbox import SHORT_QUEUE, ring

TELL_TASK = "notices.tell"


def announce(*, team_id: UUID, run_id: UUID, attempt: int, state: str, owner_id: UUID | None, facts: dict[str, Any]) -> None:
    """Announces an ending once: a second one of the same attempt and state changes nothing.

    `facts` is JSON: `name method model dataset owner message remedy failure_code`, and `page` where there is no run that has a page.
    """
    ending, fresh = RunEnding.objects.get_or_create(
        run_id=run_id, attempt=attempt, state=state, defaults={"team_id": team_id, "owner_id": owner_id, "facts": facts, "at": Now()}
    )
    if fresh:
        ring(TELL_TASK, ending.id, SHORT_QUEUE)
