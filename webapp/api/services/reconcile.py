"""What the dispatcher calls now and then: jobs whose files have been validated get their runs, old kept answers are forgotten."""

from __future__ import annotations

import logging
from datetime import timedelta

from django.utils import timezone

from webapp.api.models import Job, KeptAnswer
from webapp.api.services.create_job import settle

log = logging.getLogger(__name__)
AT_ONCE = 50
KEPT = timedelta(hours=24)


def reconcile() -> None:
    """Idempotent, and safe in several dispatchers at once."""
    waiting = Job.objects.filter(run=None, ended_at=None).exclude(dataset_version__state="validating")
    for job in waiting.select_related("dataset_version__dataset", "base_model", "team", "created_by").order_by("created_at")[:AT_ONCE]:
        settle(job)
    KeptAnswer.objects.filter(created_at__lt=timezone.now() - KEPT).delete()
