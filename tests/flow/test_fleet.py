"""Workers, queue and notices with real processes: a draining worker, the order of the queue, and a webhook that is told of each end."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.flow.site import Site, wait_for
from tests.flow.test_faults import until, until_step
from tests.webapp.notices.receiver import Receiver, receiving, verified
from tests.webapp.runs.rows import Bench, make_bench
from webapp.notices.models import Delivery, Webhook
from webapp.notices.services.signing import secret_of
from webapp.quotas.models import ComputeUse
from webapp.runs.models import RunEvent, Worker
from webapp.runs.priorities import Priority
from webapp.runs.services.drain import drain
from webapp.runs.services.reorder import set_priority
from webapp.runs.states import State

STEPS = "--steps 40 --seconds 0.05"


@pytest.fixture
def bench(site: Site) -> Bench:
    return make_bench()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


def test_a_drained_worker_ends_its_run_and_takes_no_other_until_it_resumes(site: Site, bench: Bench, receiver: Receiver) -> None:
    site.environment["GRAFT_OUTBOUND_HOSTS"] = "127.0.0.1"
    webhook = Webhook.objects.create(team=bench.team, url=receiver.url)
    site.start_dispatcher()
    site.start_worker("short", queue="short")
    site.start_worker(trainer=STEPS)
    worker = Worker.objects.get()
    assert set(worker.versions) >= {"graft", "python", "torch"}
    assert 0 < worker.vitals["memory_used_bytes"] <= worker.vitals["memory_bytes"]

    first = bench.launch(name="first")
    until_step(first, 2)
    drain(worker, draining=True, actor=bench.user, team=bench.team)
    second, third = bench.launch(name="second"), bench.launch(name="third")
    set_priority(third, Priority.HIGH, actor=bench.user)
    until(first, State.SUCCEEDED)
    wait_for(lambda: "draining, takes no more runs" in site.log("train0"), 10)
    # The end of the first is told while the others wait: their doorbells lie where a worker that takes runs would hear them.
    wait_for(lambda: Delivery.objects.filter(state="sent").count() == 1, 20)
    wait_for(lambda: site.redis().llen("graft:train") == 2, 10)
    worker.refresh_from_db()
    assert (worker.run_id, worker.draining) == (None, True)
    assert not RunEvent.objects.filter(run__in=(second, third), to_state=State.STARTING).exists()

    drain(worker, draining=False, actor=bench.user, team=bench.team)
    for run in (third, second):
        until(run, State.SUCCEEDED, 30)
    started = RunEvent.objects.filter(to_state=State.STARTING).order_by("at").values_list("run__name", flat=True)
    assert list(started) == ["first", "third", "second"]
    wait_for(lambda: Delivery.objects.filter(state="sent", status_code=200).count() == 3, 20)
    told = [json.loads(body) for _path, _headers, body in receiver.calls]
    assert [(message["type"], message["data"]["run"]["name"]) for message in told] == [("run.succeeded", name) for name in started]
    assert all(verified(secret_of(webhook), headers, body) for _path, headers, body in receiver.calls)
    assert ComputeUse.objects.exclude(ended_at=None).count() == 3
