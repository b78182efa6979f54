"""Messages that are doubled, lost, late, old or not ours: a doorbell changes nothing but when a worker looks."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from django.db import connection, transaction
from kombu import Connection

from tests.faults.figures import record
from tests.faults.waiting import behave, overlaps, until, until_step
from tests.flow.site import Site, wait_for
from tests.webapp.runs.rows import Bench
from webapp.runs.models import Run, RunEvent, Worker
from webapp.runs.states import State
from webapp.work.models import OutboxMessage
from webapp.work.outbox import ring

QUICK = "--steps 3 --seconds 0.02"


def published() -> bool:
    return not OutboxMessage.objects.filter(published_at=None).exists()


def starts(run: Run) -> int:
    return RunEvent.objects.filter(run=run, to_state=State.STARTING).count()


def test_f1_f2_fifty_doorbells_four_workers_short_visibility(site: Site, bench: Bench) -> None:
    """Two of the workers have a visibility timeout of 2 s, a third of what the run takes: by it Redis would give a message out again."""
    run = bench.launch()
    behave(site, run, "--steps 60 --seconds 0.1")
    for _ in range(49):
        ring("runs.train", run.id, "train")
    for number in range(4):
        site.environment["FLOW_VISIBILITY_SECONDS"] = "2" if number % 2 else "3600"
        site.start_worker(f"train{number}", trainer=QUICK)
    site.start_dispatcher("dispatcher0")
    site.start_dispatcher("dispatcher1")
    until(run, State.SUCCEEDED, 60)
    wait_for(published, 20)
    wait_for(lambda: site.redis().llen("graft:train") == 0, 30)
    time.sleep(2.5)
    run.refresh_from_db()
    assert (run.attempt, starts(run), overlaps(site.var, run)) == (1, 1, 0)
    record("doorbells", starts(run) - 1, "visibility timeouts of 2 s and 1 h mixed, a run of 6 s")
    record("overlaps", overlaps(site.var, run))


def test_f18_a_doorbell_rings_only_after_commit(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=QUICK)
    ready, go, launched = threading.Event(), threading.Event(), []

    def launch() -> None:
        try:
            with transaction.atomic():
                launched.append(bench.launch())
                ready.set()
                go.wait(20)
        finally:
            connection.close()

    thread = threading.Thread(target=launch)
    thread.start()
    assert ready.wait(20)
    time.sleep(1.5)
    assert "DoesNotExist" not in site.log("train0")
    assert "Received" not in site.log("train0")
    go.set()
    thread.join()
    until(launched[0], State.SUCCEEDED)
    assert "Traceback" not in site.log("train0") + site.log("dispatcher")


def test_f20_f32_redis_emptied_with_twenty_queued_and_three_dispatchers(site: Site, bench: Bench) -> None:
    for number in range(3):
        site.start_dispatcher(f"dispatcher{number}")
    runs = [bench.launch(name=f"run {number}") for number in range(20)]
    wait_for(published, 30)
    site.redis().flushall()
    for name in ("train0", "train1"):
        site.start_worker(name, trainer="--steps 1 --seconds 0.01")
    wait_for(lambda: Run.objects.filter(state=State.SUCCEEDED).count() == 20, 90)
    counted = Counter(RunEvent.objects.filter(to_state=State.STARTING).values_list("run_id", flat=True))
    wrong = [run for run in runs if counted[run.pk] != 1]
    record("flushed", len(wrong), "three dispatchers, two workers")
    assert wrong == []


def test_f28_messages_of_another_version_are_passed_over(site: Site, bench: Bench) -> None:
    """A task that there is no more, one with an argument that there is no more, one about a run that is gone: the worker lives on."""
    site.start_dispatcher()
    site.start_worker(trainer=QUICK)
    with Connection(f"redis+socket://{site.socket}?virtual_host=0", transport_options={"global_keyprefix": "graft:"}) as broker:
        producer = broker.Producer(serializer="json")
        for task, arguments, named in (
            ("runs.train_on_the_moon", ["x"], {}),
            ("runs.train", ["not-a-uuid"], {}),
            ("runs.train", ["00000000-0000-4000-8000-000000000000"], {"schema": 7}),
        ):
            headers: dict[str, Any] = {"task": task, "id": f"old-{task}", "lang": "py", "argsrepr": "", "kwargsrepr": ""}
            body = [arguments, named, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
            producer.publish(body, exchange="", routing_key="train", headers=headers, declare=[])
    wait_for(lambda: site.redis().llen("graft:train") == 0, 20)
    run = bench.launch()
    assert until(run, State.SUCCEEDED).attempt == 1
    assert site.processes["train0"].poll() is None


def test_f9_no_worker_has_loaded_torch(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    worker = site.start_worker(trainer="--steps 200 --seconds 0.05")
    run = bench.launch()
    until_step(run, 1)
    for process in (worker.pid, site.trainings()[0].ppid()):
        assert "libtorch" not in Path(f"/proc/{process}/maps").read_text()


def test_f17_a_dispatcher_killed_again_and_again(site: Site, bench: Bench) -> None:
    """Between the message and the row that says it was sent there is a moment: a doorbell may ring twice, a run starts once."""
    chance = random.Random(17)  # noqa: S311 moments, no secrets
    site.start_worker(trainer="--steps 1 --seconds 0.01")
    runs = []
    for number in range(4):
        site.start_dispatcher()
        wait_for(lambda: Worker.objects.filter(run=None).exists(), 20)
        runs += [bench.launch(name=f"run {number}.{of}") for of in range(4)]
        time.sleep(1 + chance.uniform(0, 0.5))
        site.kill("dispatcher")
    site.start_dispatcher()
    wait_for(lambda: Run.objects.filter(state=State.SUCCEEDED).count() == len(runs), 60)
    assert [starts(run) for run in runs] == [1] * len(runs)
