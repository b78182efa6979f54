"""The outbox: a doorbell to be rung, written in the transaction that makes the work."""

from __future__ import annotations

import uuid

from django.db import models


class OutboxMessage(models.Model):
    """`task` is a Celery task's name, `subject` the id of the row it is about: all that a message carries."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    task = models.CharField(max_length=80)
    subject = models.UUIDField()
    queue = models.CharField(max_length=40)
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["published_at", "created_at"], name="outbox_unpublished")]

    def __str__(self) -> str:
        return f"{self.task}({self.subject})"
