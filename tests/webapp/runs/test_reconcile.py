"""The reconciler beyond the reaper (test_lease.py): doorbells that were lost, workers that are gone."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Now

from tests.webapp.runs.rows import Bench
from webapp.runs import lease
from webapp.runs.models import Run, Worker
from webapp.runs.services.reconcile import reconcile, ring_again
from webapp.settings.env import ENV
from webapp.work.models import OutboxMessage


def worker(name: str, **fields: Any) -> Worker:
    return Worker.objects.create(**{"name": name, "queue": "train", "seen_at": Now(), **fields})


def age(**fields: Any) -> None:
    """Makes every doorbell one that was rung long ago."""
    OutboxMessage.objects.update(created_at=lease.after(-ENV.doorbell_repeat_seconds - 1), published_at=Now(), **fields)


def test_rings_again_for_the_oldest_as_many_as_workers_are_idle(bench: Bench) -> None:
    runs = [bench.launch(name=f"run {number}") for number in range(4)]
    age()
    busy = bench.launch(name="busy")
    lease.claim(busy.id, "train2")
    assert ring_again() == 0
    worker("train0")
    worker("train1")
    worker("train2", run=busy)
    worker("other", queue="large")
    worker("gone", seen_at=lease.after(-3600))
    assert ring_again() == 2
    fresh = OutboxMessage.objects.filter(published_at=None).exclude(subject=busy.id)
    assert set(fresh.values_list("subject", flat=True)) == {runs[0].id, runs[1].id}


def test_young_doorbell_is_not_doubled(bench: Bench) -> None:
    bench.launch()
    worker("train0")
    assert ring_again() == 0
    age()
    assert (ring_again(), ring_again()) == (1, 0)
    assert OutboxMessage.objects.count() == 2


def test_run_that_is_not_to_run_is_left_alone(bench: Bench) -> None:
    run = bench.launch()
    age()
    worker("train0")
    Run.objects.filter(pk=run.pk).update(state="paused")
    reconcile()
    assert OutboxMessage.objects.count() == 1


def test_workers_long_gone_are_forgotten(bench: Bench) -> None:
    worker("train0")
    worker("train1", seen_at=lease.after(-ENV.worker_forget_seconds - 1))
    reconcile()
    assert list(Worker.objects.values_list("name", flat=True)) == ["train0"]
