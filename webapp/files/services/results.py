"""Use case: the curve of a run that has succeeded as a file (`result_files` of its job): CSV, a line a step."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import IntegrityError

from jobs.errors import UserError
from webapp.datasets.services.discard_upload import discard_upload
from webapp.datasets.services.receive_part import PartRefused
from webapp.datasets.services.store_file import store_file
from webapp.files.models import File, Purpose
from webapp.files.services.store import keep
from webapp.runs.models import Record, Run
from webapp.runs.states import State

# Those that OpenAI's results have; readers such as Weights & Biases look for `step`.
COLUMNS = ("step", "train_loss", "train_accuracy", "valid_loss", "valid_mean_token_accuracy")


def results_file(run: Run) -> File | None:
    """The file, made when it is first asked for; None while the run has not succeeded, where somebody has deleted the file, or where the
    team has no room for it. A run that was extended has a new one after that.
    """
    if run.state != State.SUCCEEDED:
        return None
    known = File.objects.filter(results_of=run, results_attempt=run.attempt).first()
    if known is None:
        known = _make(run)
    return known if known is not None and known.deleted_at is None else None


def results_csv(run: Run) -> str:
    """The table: a line for every step that was trained or measured; what was not is empty."""
    rows: dict[int, dict[str, Any]] = {}
    for kind, step, data in _records(run):
        # A later attempt goes on from a checkpoint: its steps stand for those that were trained before and lost.
        row = rows.setdefault(int(step or 0), {"step": step})
        if kind == "step":
            row["train_loss"] = data.get("loss")
        elif data.get("split") == "validation" and data.get("model") == "tuned":
            row |= {"valid_loss": data.get("loss"), "valid_mean_token_accuracy": data.get("token_accuracy")}
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows[step] for step in sorted(rows))
    return text.getvalue()


def _records(run: Run) -> Iterable[tuple[str, int | None, Mapping[str, Any]]]:
    rows = Record.objects.filter(run=run, kind__in=("step", "eval"), step__isnull=False).order_by("attempt", "seq")
    return rows.values_list("kind", "step", "data").iterator(chunk_size=5000)


def _make(run: Run) -> File | None:
    body = results_csv(run).encode()
    name = f"{run.pk.hex}-results.csv"
    try:
        upload = store_file(team=run.team, user=run.created_by, filename=name, bytes_total=len(body), source=io.BytesIO(body))
    except (UserError, PartRefused):
        return None
    try:
        return keep(upload, purpose=Purpose.RESULTS, results_of=run, results_attempt=run.attempt)
    except IntegrityError:
        discard_upload(upload)
        return File.objects.filter(results_of=run, results_attempt=run.attempt).first()
