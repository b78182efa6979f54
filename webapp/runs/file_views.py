"""What a run's page offers as a file: every step as CSV, the whole log as text, the spec as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.views.decorators.http import require_GET

from webapp.accounts.bearer import takes_token
from webapp.accounts.scopes import Scope
from webapp.runs.access import get_run
from webapp.runs.models import Run
from webapp.runs.run_log import every_line
from webapp.runs.services.series import standing_steps

Answer = TypeVar("Answer", HttpResponse, StreamingHttpResponse)


@takes_token(Scope.RUNS_READ)
@require_GET
def curves(request: HttpRequest, run_id: UUID) -> StreamingHttpResponse:
    """Every step that counts, one line each, in the units of the `step` event (`jobs.events`); empty where a number is absent."""
    run = get_run(request.user, run_id, "view")
    return _attached(StreamingHttpResponse(_csv(run), content_type="text/csv; charset=utf-8"), run, "csv")


@require_GET
def log(request: HttpRequest, run_id: UUID) -> StreamingHttpResponse:
    """The log, whole: one line each, with the moment in UTC."""
    run = get_run(request.user, run_id, "view")
    lines = (f"{datetime.fromtimestamp(line.at, UTC).isoformat(timespec='milliseconds')} {line.words}\n" for line in every_line(run))
    return _attached(StreamingHttpResponse(lines, content_type="text/plain; charset=utf-8"), run, "log")


@takes_token(Scope.RUNS_READ)
@require_GET
def spec(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """The spec as it is stored: names in the place of paths."""
    run = get_run(request.user, run_id, "view")
    body = json.dumps(run.spec, indent=2, ensure_ascii=False)
    return _attached(HttpResponse(body, content_type="application/json"), run, "json")


def _csv(run: Run) -> Iterator[str]:
    names, rows = standing_steps(run)
    yield ",".join(names) + "\n"
    for row in rows:
        yield ",".join("" if value != value else f"{value:.10g}" for value in row.tolist()) + "\n"  # noqa: PLR0124 - NaN


def _attached(answer: Answer, run: Run, ending: str) -> Answer:
    answer["Content-Disposition"] = f'attachment; filename="run-{run.pk}.{ending}"'
    return answer
