"""Redis is down, restarted, silent or full: what is launched is launched, what trains goes on."""

from __future__ import annotations

import time

import pytest
from django.test import Client
from django.urls import reverse
from redis import Redis, ResponseError

from tests.faults.figures import record
from tests.faults.proxy import Proxy
from tests.faults.waiting import behave, holes, running_again, state_of, until, until_step
from tests.flow.site import Site, wait_for
from tests.webapp.runs.rows import Bench
from tests.webapp.runs.test_views import form_data
from webapp.runs.models import Record, Run
from webapp.runs.services.cancel import cancel
from webapp.runs.states import State
from webapp.work.models import OutboxMessage

QUICK = "--steps 3 --seconds 0.02"
SLOW = "--steps 4000 --seconds 0.05"


def fill(redis: Redis) -> None:
    for number in range(10_000):
        redis.set(f"junk{number}", b"x" * 10_000)


def test_f17_f19_launched_from_the_page_while_redis_is_down(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer=SLOW)
    client = Client()
    client.force_login(bench.user)

    def launch(name: str) -> float:
        data = form_data(bench, name=name)
        began = time.monotonic()
        assert client.post(reverse("runs:whole", args=[bench.team.slug]), data).status_code == 302
        return time.monotonic() - began

    launch("the first, which imports the form's modules")
    usual = launch("the second")
    site.kill("redis")
    seconds = [launch(f"run {number}") for number in range(5)]
    record("launch", max(seconds), f"the slowest of 5 POSTs; with Redis {usual:.2f} s")
    # The figure is held against its promise by the command; a machine that is slow with Redis too is no fault of Redis.
    assert max(seconds) <= 1 + usual
    wait_for(lambda: "outbox: waiting for a service" in site.log("dispatcher"), 10)
    run = Run.objects.get(name="run 0")
    assert state_of(run) == State.QUEUED
    for earlier in Run.objects.filter(name__startswith="the "):
        cancel(earlier, actor="alice")
    site.start_redis()
    back = time.monotonic()
    to_start = running_again(run, 1) - back
    record("launch_start", to_start)
    assert to_start <= 30


@pytest.mark.parametrize("busy", [False, True])
def test_f21_redis_restarted_three_times(site: Site, bench: Bench, busy: bool) -> None:
    site.start_dispatcher()
    site.start_worker("train0", trainer=SLOW)
    run = bench.launch() if busy else None
    if run:
        until_step(run, 2)
    for _ in range(3):
        site.kill("redis")
        time.sleep(1)
        site.start_redis()
        time.sleep(1)
    began = time.monotonic()
    if run:
        cancel(run, actor="alice")
        until(run, State.CANCELLED)
        assert (run.attempt, run.infra_failures, holes(run)) == (1, 0, 0)
    following = bench.launch(name="after")
    seconds = running_again(following, 1, seconds=60) - began
    record("redis_restarts", seconds, "a busy worker" if busy else "an idle worker")
    assert seconds <= 35


def test_f22_a_connection_that_falls_silent(site: Site, bench: Bench) -> None:
    site.kill("redis")
    public, site.socket = site.socket, site.socket.with_name("behind.sock")
    public.unlink(missing_ok=True)
    site.redis_url = f"unix://{site.socket}?db=0"
    site.start_redis()
    proxy = Proxy(public, site.socket)
    try:
        site.start_dispatcher()
        site.start_worker(trainer=QUICK)
        behave(site, first := bench.launch(), QUICK)
        until(first, State.SUCCEEDED)
        assert proxy.silence() > 0
        began = time.monotonic()
        run = bench.launch(name="after")
        until(run, State.SUCCEEDED, 90)
        record("half_open", time.monotonic() - began, "worker and dispatcher idle, their connections silent")
        assert time.monotonic() - began <= 60
    finally:
        proxy.close()


def test_f23_a_full_redis(site: Site, bench: Bench) -> None:
    """No room for a doorbell nor for a point: trainings go on, launches are taken, and nothing fails. With room again, all goes on."""
    dispatcher = site.start_dispatcher()
    worker = site.start_worker(trainer="--steps 60 --seconds 0.05")
    run = bench.launch()
    until_step(run, 2)
    redis = site.redis()
    redis.config_set("maxmemory", str(redis.info("memory")["used_memory"] + 200_000))
    with pytest.raises(ResponseError, match="maxmemory"):
        fill(redis)
    following = bench.launch(name="next")
    until(run, State.SUCCEEDED, 90)
    time.sleep(2)
    assert (dispatcher.poll(), worker.poll()) == (None, None)
    redis.config_set("maxmemory", "0")
    redis.delete(*redis.keys("junk*"))
    # The worker's connection may have been given up meanwhile; it comes back after some seconds, longer each time.
    until(following, State.SUCCEEDED, 90)
    assert worker.poll() is None
    wait_for(lambda: not OutboxMessage.objects.filter(published_at=None).exists(), 20)
    failed = Run.objects.filter(state=State.FAILED).count()
    record("redis_full", failed)
    assert (failed, run.attempt, holes(run), holes(following)) == (0, 1, 0, 0)


def test_f21_a_worker_that_has_lost_its_hearing_ends(site: Site, bench: Bench) -> None:
    """It looks alive and idle, and never takes a message: it finds out itself, and whoever started it starts another."""
    site.environment["GRAFT_DEAF_SECONDS"] = "2"
    site.start_dispatcher()
    deaf = site.start_worker("train0", trainer=QUICK, FLOW_DEAF="1")
    run = bench.launch()
    wait_for(lambda: deaf.poll() is not None, 30)
    assert deaf.returncode == 0
    assert "are not heard" in site.log("train0")
    assert state_of(run) == State.QUEUED
    hearing = site.start_worker("train0", trainer=QUICK)
    assert until(run, State.SUCCEEDED).attempt == 1
    time.sleep(3)
    assert hearing.poll() is None


def test_f44_a_flood_of_points(site: Site, bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker(trainer="--steps 5000 --seconds 0")
    run = until(bench.launch(), State.SUCCEEDED, 120)
    assert holes(run) == 0
    assert Record.objects.filter(run=run, kind="step").count() == 5000
    assert site.redis().xlen(f"graft:run:{run.pk}") == Record.objects.filter(run=run).count()
