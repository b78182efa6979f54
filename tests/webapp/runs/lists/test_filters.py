"""Each field of the search, asked of a team's rows; and nothing of another team."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.db.models import Q

from tests.webapp.runs.rows import LATER, Bench, make_bench
from webapp.accounts.models import User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.runs.lists.columns import BY_KEY, ordering
from webapp.runs.lists.fields import FIELDS
from webapp.runs.lists.filters import Asking, where
from webapp.runs.lists.grammar import parse
from webapp.runs.models import Experiment, Run, RunTag

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def add(bench: Bench, name: str, **columns: Any) -> Run:
    values: dict[str, Any] = {
        "team": bench.team, "created_by": bench.user, "dataset_version": bench.version, "base_model": bench.base_model, "method": "lora",
        "spec": bench.recipe().spec().to_json(), "state": "succeeded", "lease_expires_at": LATER, "queued_at": LATER,
    }  # fmt: skip
    created = columns.pop("created_at", NOW)
    run = Run.objects.create(name=name, **values | columns)
    Run.objects.filter(pk=run.pk).update(created_at=created)
    return run


@pytest.fixture
def team(bench: Bench) -> Bench:
    """Four runs that differ in everything, and one that is archived."""
    bo = User.objects.create_user(username="bo")
    data = Dataset.objects.create(team=bench.team, name="Chats", created_by=bo)
    upload = bench.version.train_upload
    versions = [DatasetVersion.objects.create(dataset=data, number=n, state="ready", train_upload=upload, created_by=bo) for n in (1, 2)]
    big = BaseModel.objects.create(name="SmolLM2-360M", source="hub", state="ready", team=bench.team)
    study = Experiment.objects.create(team=bench.team, name="Rank study", created_by=bo)
    add(
        bench,
        "alpha",
        train_loss=1.2,
        eval_loss=1.1,
        accuracy=0.9,
        peak_memory_bytes=3 * 10**9,
        duration=timedelta(minutes=5),
        last_step=90,
    )
    tagged = add(bench, "beta", method="qlora", created_by=bo, base_model=big, train_loss=2.0, accuracy=0.5, peak_memory_bytes=5 * 10**9,
                 duration=timedelta(minutes=20), last_step=400, experiment=study, created_at=NOW - timedelta(days=10))  # fmt: skip
    RunTag.objects.bulk_create([RunTag(run=tagged, name="prod"), RunTag(run=tagged, name="best-one")])
    add(bench, "gamma 100%", state="failed", dataset_version=versions[0], created_at=NOW - timedelta(days=30))
    add(bench, "delta", state="running", dataset_version=versions[1], kind="compose")
    add(bench, "old", archived_at=NOW)
    return bench


def names(bench: Bench, text: str, user: User | None = None) -> set[str]:
    query = parse(text, FIELDS)
    assert query.mistakes == ()
    return set(bench.team.runs.filter(where(query.terms, Asking(bench.team, user or bench.user, NOW))).values_list("name", flat=True))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "alpha beta gamma delta"),
        ("status:failed", "gamma"),
        ("status:failed,running", "gamma delta"),
        ("status:active", "delta"),
        ("-status:active", "alpha beta gamma"),
        ("status:done", "alpha beta"),
        ("method:lora", "alpha gamma delta"),
        ("method:QLoRA", "beta"),
        ("owner:bo", "beta"),
        ("owner:me", "alpha gamma delta"),
        ("owner:b", ""),
        ("tag:prod", "beta"),
        ("tag:PROD", "beta"),
        ("-tag:prod", "alpha gamma delta"),
        ("is:tagged", "beta"),
        ("data:chat", "gamma delta"),
        ("data:chats@2", "delta"),
        ('data:"chat"', ""),
        ('data:"chats"', "gamma delta"),
        ("data:none@x", ""),
        ("model:360", "beta"),
        ("experiment:rank", "beta"),
        ('experiment:"rank study"', "beta"),
        ("kind:compose", "delta"),
        ("loss<1.5", "alpha"),
        ("loss=2", "beta"),
        ("-loss<1.5", "beta gamma delta"),
        ("eval<=1.1", "alpha"),
        ("accuracy>=70%", "alpha"),
        ("accuracy>=0.5", "alpha beta"),
        ("memory<4GB", "alpha"),
        ("memory>4GB", "beta"),
        ("time>10m", "beta"),
        ("time<1e300d", "alpha beta"),
        ("step>100", "beta"),
        ("created>2026-11-10", "alpha delta"),
        ("created>=2026-11-10", "alpha beta delta"),
        ("created<2026-11-10", "gamma"),
        ("created<=2026-11-10", "beta gamma"),
        ("created:2026-11-10", "beta"),
        ("created=2026-11-20T12:00", "alpha delta"),
        ("created>2026-11-20T12:00", ""),
        ("age<7d", "alpha delta"),
        ("age>2w", "gamma"),
        ("alp", "alpha"),
        ("100%", "gamma"),
        ("_", ""),
        ("chats", "gamma delta"),
        ("smollm", "beta"),
        ("best", "beta"),
        ("bo", "beta"),
        ("-bo -chats", "alpha"),
        ("lora accuracy>0.1", "alpha beta"),
        ("is:archived", "old"),
        ("-is:archived", "alpha beta gamma delta"),
        ("is:archived status:failed", ""),
    ],
)
def test_what_a_search_finds(team: Bench, text: str, found: str) -> None:
    assert {name.split()[0] for name in names(team, text)} == set(found.split())


def test_me_is_who_asks(team: Bench) -> None:
    assert names(team, "owner:me", User.objects.get(username="bo")) == {"beta"}


def test_names_of_another_teams_data_are_not_searched(team: Bench) -> None:
    other = make_bench("charlie")
    Dataset.objects.filter(pk=other.version.dataset_id).update(name="Chats of ours")
    Run.objects.filter(name="alpha").update(dataset_version=other.version)
    assert names(team, "data:ours") == set()
    assert names(team, "ours") == set()


@pytest.mark.parametrize("key", sorted(BY_KEY))
@pytest.mark.parametrize("sign", ["", "-"])
def test_every_column_sorts_and_what_was_not_measured_comes_last(team: Bench, key: str, sign: str) -> None:
    runs = list(team.team.runs.filter(Q(archived_at=None)).order_by(*ordering(sign + key)))
    assert len(runs) == 4
    values = [[_of(run, path) for path in BY_KEY[key].paths] for run in runs]
    measured = [value for value in values if None not in value]
    assert values == measured + [value for value in values if None in value]
    assert measured == sorted(measured, reverse=sign == "-")


def _of(run: Run, path: str) -> Any:
    value: Any = run
    for part in path.split("__"):
        value = getattr(value, part, None)
    return value


@pytest.mark.skipif(connection.vendor != "sqlite", reason="reads SQLite's plan")
@pytest.mark.parametrize(
    ("key", "index"), [("-created", "run_team_created"), ("eval", "run_team_eval_loss"), ("-accuracy", "run_team_accuracy")]
)
def test_a_figure_is_sorted_by_its_index(team: Bench, key: str, index: str) -> None:
    first = team.team.runs.filter(archived_at=None).order_by(*ordering(key)).only("pk")[:50]
    assert index in first.explain()
