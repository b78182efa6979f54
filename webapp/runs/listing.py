"""What the page of a team's runs shows: the runs that match, how many there are, and the workers. A constant number of queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.core.paginator import Page, Paginator
from django.db.models import Count, Q
from django.http import QueryDict
from django.utils.timezone import now

from jobs.methods.registry import all_methods
from webapp.accounts.models import Team
from webapp.runs.figures import Headline, headline
from webapp.runs.models import Run, Worker
from webapp.runs.states import ACTIVE, State

PAGE_SIZE = 50
# A worker says that it lives every few seconds; one that has been silent for longer is shown as lost.
SILENT_SECONDS = 60

GROUPS: dict[str, frozenset[State]] = {
    "active": ACTIVE | {State.QUEUED, State.INTERRUPTED},
    "paused": frozenset({State.PAUSED}),
    "succeeded": frozenset({State.SUCCEEDED}),
    "failed": frozenset({State.FAILED}),
    "cancelled": frozenset({State.CANCELLED}),
}


@dataclass(frozen=True)
class Row:
    """One run with the figures of its line; `figure` is None where nothing was measured."""

    run: Run
    method: str
    eval_loss: float | None
    figure: Headline | None
    peak_memory_bytes: int | None
    seconds: float | None


@dataclass(frozen=True)
class Fleet:
    """One worker of the site; `run` only where it belongs to the team that looks."""

    worker: Worker
    run: Run | None
    busy: bool
    lost: bool


@dataclass(frozen=True)
class Listing:
    """The page: its rows, the counts of the whole team, and the filter as it was asked for."""

    rows: list[Row]
    page: Page[Run]
    total: int
    running: int
    queued: int
    workers: list[Fleet]
    query: str
    group: str

    @property
    def is_moving(self) -> bool:
        """Whether anything of the team will change by itself, so that the page should look again."""
        return bool(self.running or self.queued)

    @property
    def filtered(self) -> bool:
        """Whether a filter is set."""
        return bool(self.query or self.group)


def listing(team: Team, asked: QueryDict) -> Listing:
    """The runs of a team. `asked` may hold `q` (a word in name, dataset, model, method or person), `state` (a key of GROUPS), `page`."""
    query, group = asked.get("q", "").strip(), asked.get("state", "")
    runs = team.runs.select_related("created_by", "base_model", "dataset_version__dataset").defer("spec").order_by("-created_at")
    if query:
        words = ("name", "dataset_version__dataset__name", "base_model__name", "method", "created_by__username")
        runs = runs.filter(*(Q(*((f"{word}__icontains", term) for word in words), _connector=Q.OR) for term in query.split()))
    if group in GROUPS:
        runs = runs.filter(state__in=GROUPS[group])
    counts = team.runs.aggregate(
        total=Count("pk"), running=Count("pk", filter=Q(state__in=ACTIVE)), queued=Count("pk", filter=Q(state=State.QUEUED))
    )
    page = Paginator(runs, PAGE_SIZE).get_page(asked.get("page"))
    names = {method.id: method.name for method in all_methods()}
    moment = now()
    return Listing(
        rows=[_row(run, names, moment) for run in page], page=page, workers=_fleet(team, moment), query=query, group=group, **counts
    )


def _row(run: Run, names: dict[str, str], moment: datetime) -> Row:
    evals = run.summary.get("evals") or {}
    test = evals.get("test") or {}
    loss = (test.get("tuned") or {}).get("loss")
    return Row(
        run=run,
        method=names.get(run.method, run.method),
        eval_loss=loss if loss is not None else (evals.get("validation") or {}).get("loss"),
        figure=headline(run.summary),
        peak_memory_bytes=run.summary.get("peak_memory_bytes"),
        seconds=seconds_of(run, moment),
    )


def seconds_of(run: Run, moment: datetime) -> float | None:
    """From the first start to the end (or to `moment`); None before the first start."""
    if run.started_at is None:
        return None
    return max(0.0, ((run.finished_at or moment) - run.started_at).total_seconds())


def _fleet(team: Team, moment: datetime) -> list[Fleet]:
    workers = Worker.objects.select_related("run").order_by("name")
    return [
        Fleet(
            worker=worker,
            run=worker.run if worker.run and worker.run.team_id == team.id else None,
            busy=worker.run_id is not None,
            lost=moment - worker.seen_at > timedelta(seconds=SILENT_SECONDS),
        )
        for worker in workers
    ]
