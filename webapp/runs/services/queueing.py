"""Write a new run down with its doorbell: what launching a run of any kind ends with."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models.functions import Now

import jobs
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.quotas.services.limits import check_launch
from webapp.runs import lease
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.states import State
from webapp.work.outbox import TRAIN_QUEUE, ring


def queue_run(
    *,
    kind: Kind,
    team: Team,
    user: User,
    name: str,
    dataset_version: DatasetVersion,
    base_model: BaseModel,
    method: str,
    spec: dict[str, Any],
    run_id: UUID | None = None,
) -> Run:
    """Queues a run of `team`, in one transaction: run, history, doorbell. Its id is `run_id` or a new one. Everything but the team's quota
    has been checked by the caller.

    Raises `UserError` where a limit of the quota is reached (`quotas.services.limits.check_launch`).
    """
    with transaction.atomic():
        check_launch(team, Run.objects.filter(team=team, state=State.QUEUED).count())
        run = Run.objects.create(
            id=run_id or uuid4(),
            kind=kind,
            team=team,
            created_by=user,
            name=name,
            dataset_version=dataset_version,
            base_model=base_model,
            method=method,
            spec=spec,
            queue=TRAIN_QUEUE,
            queued_at=Now(),
            lease_expires_at=Now(),
            code_version=jobs.__version__,
        )
        lease.record(run.id, to=State.QUEUED, actor=user.username, attempt=0)
        record(Action.RUN_CREATED, team=team, actor=user, thing=run, name=name, detail={"kind": kind, "method": method})
        ring(lease.TRAIN_TASK, run.id, run.queue)
    run.refresh_from_db()
    return run
