"""Writing to the outbox. Only the dispatcher publishes; a request never talks to Redis."""

from __future__ import annotations

from uuid import UUID

from webapp.work.models import OutboxMessage

TRAIN_QUEUE = "train"
SHORT_QUEUE = "short"


def ring(task: str, subject: UUID, queue: str) -> None:
    """Announces work in the caller's transaction: the doorbell rings after commit, and only then."""
    OutboxMessage.objects.create(task=task, subject=subject, queue=queue)
