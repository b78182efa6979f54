"""The list of a team with 10,000 runs: the time that the server takes for a page, from the request to the last byte, with all of Django."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from benchmarks.ui.measured import Measured, timed

if TYPE_CHECKING:
    from webapp.accounts.models import Team, User
    from webapp.runs.models import Run

RUNS = 10_000
# For the first page, with and without its frame.
TARGET_MS = 100.0
METHODS = ("lora", "qlora", "full", "dora", "ia3", "block_sparse")
STATES = ("succeeded",) * 14 + ("failed",) * 3 + ("cancelled", "paused", "running")
TAGS = ("prod", "sweep", "baseline", "keep")
PLAN = {
    "epochs": 3.0,
    "start_step": 0,
    "train_rows": 570,
    "validation_rows": 30,
    "test_rows": 60,
    "train_tokens": 48_000,
    "label_tokens": 1_900,
    "trainable_parameters": 4_884_480,
    "total_parameters": 139_399_488,
    "micro_batch": 8,
    "gradient_accumulation": 2,
    "effective_batch": 16,
    "max_length": 128,
    "precision": "bfloat16",
    "device": {"kind": "cuda", "name": "A100", "memory_bytes": 40_000_000_000, "threads": 8, "bfloat16": True, "count": 1},
}
# What is asked for, in words and as a query string. The promise is about the first page; the others tell what a search costs.
ASKED = (
    ("first page", ""),
    ("page 100", "?page=100"),
    ("sorted by eval loss", "?sort=eval"),
    ("sorted by model", "?sort=model&col=model"),
    ("status:failed loss<1.5 tag:prod", "?q=status:failed+loss%3C1.5+tag:prod"),
    ("accuracy>=70% memory<4GB -tag:prod", "?q=accuracy%3E%3D70%25+memory%3C4GB+-tag:prod"),
    ("a bare word", "?q=nightly"),
    ("grouped by dataset", "?group=dataset"),
    ("grouped by method, sorted by eval loss", "?group=method&sort=eval"),
    ("the part that htmx asks for", ""),
)


def measure(rounds: int = 30) -> list[Measured]:
    """Fills the database and measures each page. The site has been set up."""
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext
    from django.urls import reverse

    from webapp.core.collector import settle

    team, user = fill(RUNS)
    client = Client()
    client.force_login(user)
    # As the web server does once it has loaded.
    settle()
    found = []
    for words, query in ASKED:
        url = reverse("runs:list", args=[team.slug]) + query
        headers = {"HX-Request": "true"} if "htmx" in words else {}

        def ask(url: str = url, headers: dict[str, str] = headers) -> None:
            answer = client.get(url, headers=headers)
            assert answer.status_code == 200, answer.status_code

        with CaptureQueriesContext(connection) as queries:
            ask()
        target = None if query else TARGET_MS
        found.append(timed(f"runs: {words}", ask, rounds=rounds, target_ms=target, note=f"{len(queries)} queries"))
    return found


def fill(count: int) -> tuple[Team, User]:
    """A team with so many runs over 12 datasets, 4 models, 6 methods and 30 experiments, with what real ones hold; and its owner."""
    from django.db.models import F

    from webapp.accounts.models import Membership, Role, Team, User
    from webapp.catalog.models import BaseModel
    from webapp.runs.models import Experiment, Run, RunTag

    dice = random.Random(7)  # noqa: S311 - the same rows every time
    people = [User.objects.create_user(username=name) for name in ("ana", "bo", "chen", "dora")]
    team = Team.objects.create(name="Bench", slug="bench")
    for person in people:
        Membership.objects.create(team=team, user=person, role=Role.OWNER if person == people[0] else Role.MEMBER)
    models = [BaseModel.objects.create(name=f"SmolLM2-{size}", source="hub", state="ready") for size in ("135M", "360M", "1.7B", "3B")]
    versions = list(_versions(team, people[0]))
    experiments = [Experiment.objects.create(team=team, name=f"rank study {number}", created_by=people[0]) for number in range(30)]
    stories = [_summary(dice, steps) for steps in (40, 120, 300, 900) for _ in range(8)]
    runs = [
        _run(
            dice,
            number,
            team=team,
            created_by=dice.choice(people),
            base_model=dice.choice(models),
            dataset_version=dice.choice(versions),
            experiment=dice.choice(experiments) if number % 3 == 0 else None,
            summary=dice.choice(stories),
        )
        for number in range(count)
    ]
    Run.objects.bulk_create(runs, batch_size=500)
    # What is written at creation is the moment of now.
    Run.objects.update(created_at=F("queued_at"))
    RunTag.objects.bulk_create(RunTag(run=run, name=name) for run in runs for name in TAGS if dice.random() < 0.15)
    return team, people[0]


def _versions(team: Team, user: User) -> Iterator[Any]:
    from django.utils.timezone import now

    from webapp.datasets.models import Dataset, DatasetVersion, Upload

    upload = Upload.objects.create(team=team, created_by=user, filename="rows.jsonl", bytes_total=1, expires_at=now())
    # What a real check leaves behind, which a list must not read.
    report = {"problems": [{"line": line, "message": "the answer is empty"} for line in range(400)]}
    for number in range(12):
        dataset = Dataset.objects.create(team=team, name=f"tickets-{number}", created_by=user)
        for version in (1, 2):
            yield DatasetVersion.objects.create(
                dataset=dataset, number=version, state="ready", train_upload=upload, created_by=user, report=report, manifest={}
            )


def _run(dice: random.Random, number: int, *, summary: dict[str, Any], **belongs: Any) -> Run:
    from django.utils.timezone import now

    from webapp.runs.listed import listed
    from webapp.runs.models import Run

    state, seconds, total = dice.choice(STATES), dice.uniform(60, 9_000), summary["plan"]["total_steps"]
    started = now() - timedelta(days=300 * dice.random())
    columns = listed(summary)
    # The same story under other figures, so that sorting has something to do.
    for name in ("train_loss", "eval_loss"):
        columns[name] = round(float(columns[name] or 1) * dice.uniform(0.5, 2), 4)
    if state == "failed":
        columns |= {"eval_loss": None, "accuracy": None}
    return Run(
        name=f"{dice.choice(('support', 'nightly', 'sweep', 'probe'))}-{number}",
        method=dice.choice(METHODS),
        spec={"settings": "x" * 1_500},
        state=state,
        attempt=1,
        lease_expires_at=started,
        queued_at=started,
        started_at=started,
        finished_at=started + timedelta(seconds=seconds),
        duration=timedelta(seconds=seconds),
        last_step=total,
        total_steps=total,
        failure_code="cuda_oom" if state == "failed" else "",
        summary=summary,
        **columns,
        **belongs,
    )


def _summary(dice: random.Random, steps: int) -> dict[str, Any]:
    """A summary as a real run's is: folded from its events."""
    from jobs.events import Event
    from webapp.runs.fold import fold

    peak = dice.randint(1_000_000_000, 30_000_000_000)
    measured = (("validation", "tuned", None), ("test", "base", 0.1), ("test", "tuned", dice.uniform(0.4, 0.97)))
    events = [("plan", PLAN | {"total_steps": steps, "steps_per_epoch": steps / 3})]
    events += [("step", _step(dice, step, steps, peak)) for step in range(1, steps + 1)]
    events += [("eval", _evaluation(dice, steps, *each)) for each in measured]
    summary: dict[str, Any] = {}
    for seq, (kind, data) in enumerate(events, 1):
        summary = fold(summary, Event(seq, 0.0, kind, data))
    return summary


def _step(dice: random.Random, step: int, steps: int, peak: int) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": 3 * step / steps,
        "loss": 0.3 + 2.5 * math.exp(-4 * step / steps) + dice.uniform(0, 0.2),
        "learning_rate": 1e-4,
        "gradient_norm": 0.8,
        "tokens": 96 * step,
        "tokens_per_second": 3_400.0,
        "elapsed_seconds": 0.4 * step,
        "eta_seconds": 0.4 * (steps - step),
        "memory": {"reserved_bytes": peak},
    }


def _evaluation(dice: random.Random, step: int, split: str, model: str, accuracy: float | None) -> dict[str, Any]:
    return {
        "step": step,
        "epoch": 3.0,
        "split": split,
        "model": model,
        "loss": dice.uniform(0.2, 2),
        "perplexity": 2.1,
        "token_accuracy": 0.8,
        "exact_match": accuracy,
        "label_accuracy": accuracy,
        "rows": 60,
        "tokens": 190,
        "seconds": 14.0,
    }
