"""The socket of a run, through a real server: nothing lost, nothing twice, nobody let in."""

from __future__ import annotations

import threading
import time
import uuid
from pathlib import Path

import pytest
from django.contrib.sessions.models import Session
from django.db import connection
from websockets.exceptions import InvalidStatus

from tests.flow.site import Site
from tests.webapp.runs.live import Page, Training, Web, sign_in
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import Membership, User
from webapp.runs.models import Run
from webapp.runs.stream import stream_key

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def alice(site: Site) -> Bench:
    return make_bench()


@pytest.fixture
def run(alice: Bench) -> Run:
    return alice.launch()


@pytest.fixture
def cookie(alice: Bench) -> str:
    return sign_in(alice.user)


def numbers(attempt: int, first: int, last: int) -> list[tuple[int, int]]:
    return [(attempt, seq) for seq in range(first, last + 1)]


def test_history_then_live_then_again_from_the_cursor(web: Web, run: Run, cookie: str, tmp_path: Path) -> None:
    training = Training(run, tmp_path)
    training.steps(1200)
    training.ship()
    training.steps(7)
    training.ship(archive=False)

    page = web.page(run, cookie).until(lambda page: page.cursor == "1-1207")
    training.steps(20)
    training.ship()
    page.until(lambda page: page.cursor == "1-1227")
    later = web.page(run, cookie, after="1-1220").until(lambda page: page.cursor == "1-1227")

    assert page.ids == numbers(1, 1, 1227)
    assert later.ids == numbers(1, 1221, 1227)
    assert page.events[1206]["data"] == {"step": 1207, "loss": 3.0 / 1207, "learning_rate": 2e-4, "gradient_norm": 1.0}
    assert page.runs[0]["id"] == str(run.pk)
    assert page.runs[0]["can"]["pause"] is True


def test_a_change_of_the_run_is_shown(web: Web, run: Run, cookie: str) -> None:
    page = web.page(run, cookie).until(lambda page: page.runs)
    assert (page.runs[0]["state"], page.runs[0]["queue_position"]) == ("queued", 1)

    Run.objects.filter(pk=run.pk).update(state="failed", failure_code="stalled", message="No step for ten minutes.")
    page.until(lambda page: page.runs[-1]["state"] == "failed", 3)

    assert page.runs[-1]["message"] == "No step for ten minutes."
    assert {action for action, possible in page.runs[-1]["can"].items() if possible} == {"retry", "delete"}


def test_a_trimmed_stream_is_filled_from_the_archive(web: Web, site: Site, run: Run, cookie: str, tmp_path: Path) -> None:
    training = Training(run, tmp_path)
    training.steps(300)
    training.ship()
    page = web.page(run, cookie, after="1-290").until(lambda page: page.cursor == "1-300")

    # The wire runs ahead of the archive, and loses its middle before anybody has read it.
    training.steps(300)
    pipeline = site.redis().pipeline(transaction=True)
    pipeline.xadd(stream_key(run.pk), {"e": training.path.read_text().splitlines()[-1]}, id="1-600")
    pipeline.execute()
    time.sleep(1.5)
    assert page.cursor == "1-300"
    training.ship(wire=False)
    page.until(lambda page: page.cursor == "1-600")

    assert page.ids == numbers(1, 291, 600)


def test_a_flushed_redis_loses_nothing(web: Web, site: Site, run: Run, cookie: str, tmp_path: Path) -> None:
    training = Training(run, tmp_path)
    training.steps(50)
    training.ship()
    page = web.page(run, cookie).until(lambda page: page.cursor == "1-50")
    training.steps(50)
    training.ship()
    site.redis().flushall()
    training.steps(10)
    training.ship(wire=False)

    page.until(lambda page: page.cursor == "1-110")

    assert page.ids == numbers(1, 1, 110)


def test_a_new_attempt_follows_the_old_one(web: Web, run: Run, cookie: str, tmp_path: Path) -> None:
    first = Training(run, tmp_path)
    first.steps(40)
    first.ship()
    page = web.page(run, cookie).until(lambda page: page.cursor == "1-40")
    second = Training(run, tmp_path, attempt=2)
    second.steps(30)
    second.ship()

    page.until(lambda page: page.cursor == "2-30")

    assert page.ids == numbers(1, 1, 40) + numbers(2, 1, 30)


@pytest.mark.slow
def test_killed_servers_lose_and_repeat_nothing(web: Web, site: Site, run: Run, cookie: str, tmp_path: Path) -> None:
    training = Training(run, tmp_path)
    over = threading.Event()

    def train() -> None:
        while not over.is_set():
            training.steps(5)
            training.ship()
            time.sleep(0.05)
        training.ship()
        connection.close()

    trainer = threading.Thread(target=train)
    trainer.start()
    seen: list[tuple[int, int]] = []
    cursor = "0-0"
    try:
        for victim in ("web", "redis", "web", "redis"):
            page = web.page(run, cookie, after=cursor)
            held = len(seen)
            page.until(lambda page: len(page.events) >= 30, 20)
            site.kill(victim)
            if victim == "redis":
                site.start_redis()
                page.until(lambda page: len(page.events) >= 120, 20)
            else:
                page.closed()
                web.start()
            seen += page.ids
            cursor = page.cursor
            page.connection.close()
            assert len(seen) > held
    finally:
        over.set()
        trainer.join()
    training.steps(50)
    training.ship()
    last = web.page(run, cookie, after=cursor).until(lambda page: page.cursor == f"1-{training.step}", 20)

    assert seen + last.ids == numbers(1, 1, training.step)


def test_who_may_not_see_the_run_is_refused(web: Web, run: Run, cookie: str) -> None:
    charlie = sign_in(make_bench("charlie").user)
    unknown = Run(pk=uuid.uuid4())

    for who, which, origin in (
        (charlie, run, None),
        ("nobody", run, None),
        (cookie, unknown, None),
        (cookie, run, "https://evil.example"),
        (cookie, run, "null"),
    ):
        with pytest.raises(InvalidStatus) as refusal:
            web.page(which, who, **({"origin": origin} if origin else {}))
        assert refusal.value.response.status_code == 403


def test_a_bad_cursor_is_refused(web: Web, run: Run, cookie: str) -> None:
    for cursor in ("-1", "abc", "$", "9" * 40, "1-2%0D%0A", "", "1-", "٣-١", "1-2-3"):
        assert web.page(run, cookie, after=cursor).closed() == 4400, cursor


def test_the_eleventh_socket_and_a_flood_are_refused(web: Web, run: Run, cookie: str) -> None:
    pages = [web.page(run, cookie).until(lambda page: page.runs) for _ in range(10)]
    assert web.page(run, cookie).closed() == 4429

    for _ in range(21):
        pages[0].connection.send("x")
    assert pages[0].closed() == 4429
    assert pages[1].read(6)
    web.page(run, cookie).until(lambda page: page.runs)


@pytest.mark.parametrize("event", ["membership", "logout", "password", "inactive", "deleted"])
def test_lost_access_closes_the_socket(web: Web, run: Run, alice: Bench, cookie: str, event: str) -> None:
    other = User.objects.create_user("bob")
    Membership.objects.create(team=alice.team, user=other)
    kept = web.page(run, sign_in(other)).until(lambda page: page.runs)
    page = web.page(run, cookie).until(lambda page: page.runs)

    began = time.monotonic()
    if event == "membership":
        Membership.objects.filter(user=alice.user).delete()
    elif event == "logout":
        Session.objects.filter(session_key=cookie).delete()
    elif event == "password":
        alice.user.set_password("another")
        alice.user.save()
    elif event == "inactive":
        User.objects.filter(pk=alice.user.pk).update(is_active=False)
    else:
        Run.objects.filter(pk=run.pk).delete()

    assert page.closed(5.5) == 4404
    assert time.monotonic() - began < 5.5
    if event != "deleted":
        assert kept.read(6)
        assert kept.code is None


def test_an_idle_socket_stays_open_and_beats(web: Web, run: Run, cookie: str) -> None:
    page: Page = web.page(run, cookie)
    frames = 0
    end = time.monotonic() + 7
    while time.monotonic() < end:
        frames += page.read(1)

    assert page.code is None
    # The run, and a beat at 0 and 5 s.
    assert frames == 3
