"""Tells of a job that ended before it had a run, as a run's end is told: to webhooks, by e-mail, on the open page."""

from __future__ import annotations

from django.urls import reverse

from webapp.api.models import Job
from webapp.api.services.hyperparameters import Wanted
from webapp.notices.services.announce import announce
from webapp.runs.states import State


def announce_end(job: Job, state: State, *, code: str = "", message: str = "") -> None:
    """Announces the end of a job without a run, within the caller's transaction. It names the page of its rows: of a run there is none."""
    version, method = job.dataset_version, Wanted(**job.hyperparameters).method
    dataset = version.dataset.name if version else job.training_file.filename
    facts = {
        "name": f"{dataset}-{job.suffix or method}",
        "method": method,
        "model": job.base_model.name,
        "dataset": dataset,
        "owner": job.created_by.username,
        "message": message,
        "remedy": "",
        "failure_code": code,
        "page": reverse("datasets:version", args=[version.pk]) if version else reverse("datasets:list", args=[job.team.slug]),
    }
    announce(team_id=job.team_id, run_id=job.pk, attempt=0, state=state, owner_id=job.created_by_id, facts=facts)
