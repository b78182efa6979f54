"""The page that compares 30 runs of 1,000 steps, what its charts ask for, and the page of an experiment of the same runs: server time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.ui import long_run
from benchmarks.ui.measured import Measured, timed
from benchmarks.ui.rows import bench, running

RUNS, STEPS = 30, 1000


def measure(rounds: int = 20) -> list[Measured]:
    """Fills the database and measures. The site has been set up."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext
    from django.urls import reverse

    from webapp.runs.models import Experiment, Run

    team, user, version, base = bench("compare")
    experiment = Experiment.objects.create(team=team, name="rank study", created_by=user)
    runs = [long_run.record(running(team, user, version, base), STEPS) for _ in range(RUNS)]
    Run.objects.filter(team=team).update(experiment=experiment)
    client = Client()
    client.force_login(user)

    def ask(url: str, query: Any = None) -> None:
        answer = client.get(url, query)
        assert answer.status_code == 200, (url, answer.status_code)

    def charts() -> None:
        for run in runs:
            ask(reverse("runs:series", args=[run.pk]), {"keys": "loss"})

    compare = reverse("runs:compare", args=[team.slug])
    pages: tuple[tuple[str, Callable[[], None]], ...] = (
        (f"compare: {RUNS} runs", lambda: ask(compare, {"run": [str(run.pk) for run in runs]})),
        (f"compare: the {RUNS} requests of one chart", charts),
        (f"experiment: {RUNS} runs", lambda: ask(reverse("experiments:detail", args=[experiment.pk]))),
        ("experiments: the list", lambda: ask(reverse("experiments:list", args=[team.slug]))),
    )
    found = []
    for words, page in pages:
        with CaptureQueriesContext(connection) as queries:
            page()
        found.append(timed(words, page, rounds=rounds, target_ms=None, note=f"{len(queries)} queries"))
    return found
