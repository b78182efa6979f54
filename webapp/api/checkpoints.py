"""The checkpoints of a job, the newest first: each step at which the training kept the model."""

from __future__ import annotations

import re

from webapp.api.jobs_schemas import CheckpointObject, Metrics
from webapp.api.naming import name_of_checkpoint
from webapp.api.paging import unknown_after
from webapp.runs.models import Record, Run

_ID = re.compile(r"ftckpt_(?P<run>[0-9a-f]{32})-(?P<step>[0-9]{1,9})")


def checkpoints_of(run: Run, after: str | None, limit: int) -> tuple[list[CheckpointObject], bool]:
    """At most `limit` checkpoints before that with the id `after`, and whether there are more. Raises `ApiError` 400."""
    rows = Record.objects.filter(run=run, kind="checkpoint", step__isnull=False)
    if after:
        match = _ID.fullmatch(after)
        if match is None or match["run"] != run.pk.hex or not rows.filter(step=int(match["step"])).exists():
            raise unknown_after(after)
        rows = rows.filter(step__lt=int(match["step"]))
    # An attempt that went on from an earlier checkpoint writes some of them again: the last one counts.
    newest = {int(row.step or 0): row for row in rows.order_by("attempt", "seq")}
    steps = sorted(newest, reverse=True)
    return [_checkpoint(run, newest[step]) for step in steps[:limit]], len(steps) > limit


def kept_steps(run: Run) -> set[int]:
    """The steps whose checkpoints still have their weights."""
    folders = run.folder.glob("attempt-*/checkpoints/step-*")
    return {int(folder.name.removeprefix("step-")) for folder in folders if folder.name.removeprefix("step-").isdigit()}


def _checkpoint(run: Run, row: Record) -> CheckpointObject:
    step = int(row.step or 0)
    said = Record.objects.filter(run=run, attempt=row.attempt, step=step)
    trained = said.filter(kind="step").first()
    measured = [one.data for one in said.filter(kind="eval") if one.data.get("split") == "validation" and one.data.get("model") == "tuned"]
    valid = measured[-1] if measured else {}
    return CheckpointObject(
        id=f"ftckpt_{run.pk.hex}-{step}",
        created_at=int(row.at),
        fine_tuned_model_checkpoint=name_of_checkpoint(run, step),
        fine_tuning_job_id=f"ftjob-{run.pk.hex}",
        step_number=step,
        metrics=Metrics(
            step=step,
            train_loss=trained.data.get("loss") if trained else None,
            valid_loss=valid.get("loss"),
            valid_mean_token_accuracy=valid.get("token_accuracy"),
        ),
        kept=step in kept_steps(run),
    )
