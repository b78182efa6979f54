"""Shipping an attempt's events to a real Redis Stream and to the archive, through outages of either."""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connection

from jobs.events import Event, EventWriter, read_events
from tests.flow.site import Site
from tests.webapp.runs.rows import make_bench
from webapp.runs import lease
from webapp.runs.fold import fold
from webapp.runs.ingest import Archive, Fenced, Ingest, Tail, Wire, ship_rest
from webapp.runs.keys import stream_key
from webapp.runs.models import Record, Run
from webapp.runs.services.reconcile import reap
from webapp.runs.states import State


@pytest.fixture
def claimed(site: Site) -> Run:
    run = make_bench().launch()
    found = lease.claim(run.id, "train0")
    assert found is not None
    return found


def write_steps(writer: EventWriter, first: int, last: int) -> None:
    for step in range(first, last + 1):
        writer.emit("step", step=step, loss=1.0 / step)


def ids(site: Site, run: Run) -> list[str]:
    entries: Any = site.redis().xrange(stream_key(run.id))
    return [entry.decode() for entry, _fields in entries]


def test_stream_archive_and_summary_agree(site: Site, claimed: Run, tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    writer.emit("plan", total_steps=1200, start_step=0)
    write_steps(writer, 1, 1200)
    writer.emit("checkpoint", step=1200, path="checkpoints/step-00001200", bytes=1, seconds=0.1, best=False)
    ingest = Ingest(claimed, tmp_path / "events.jsonl")
    shipped = ingest.ship()
    events = list(read_events(tmp_path / "events.jsonl"))
    assert shipped == events
    assert not ingest.is_behind
    assert ids(site, claimed) == [f"1-{event.seq}" for event in events]
    body = json.loads(site.redis().xrange(stream_key(claimed.id))[-1][1][b"e"])  # type: ignore[index]
    assert body == {"attempt": 1, **json.loads(events[-1].to_line())}
    rows = Record.objects.filter(run=claimed).values_list("seq", "kind", "step", "at", "data")
    assert list(rows) == [(event.seq, event.kind, event.data.get("step"), event.t, event.data) for event in events]
    claimed.refresh_from_db()
    assert claimed.summary == reduce(fold, events, {})
    assert (claimed.last_step, claimed.total_steps, claimed.last_checkpoint_step) == (1200, 1200, 1200)
    ingest.close()


def test_half_a_line_waits_for_the_rest(tmp_path: Path) -> None:
    line = Event(seq=1, t=1.0, kind="log", data={"level": "info", "message": "a\u0000b"}).to_line().encode()
    path = tmp_path / "events.jsonl"
    tail = Tail(path)
    assert tail.read() == ([], 0)
    path.write_bytes(line[:20])
    assert tail.read() == ([], 0)
    path.write_bytes(line)
    events, offset = tail.read()
    assert (events[0].data["message"], offset) == ("a\ufffdb", len(line))


def test_line_longer_than_a_read_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.runs.ingest.READ_BYTES", 10)
    lines = [Event(seq=seq, t=1.0, kind="log", data={"message": "x" * 50}).to_line() for seq in (1, 2)]
    path = tmp_path / "events.jsonl"
    path.write_text("".join(lines))
    tail = Tail(path)
    for seq in (1, 2):
        events, tail.offset = tail.read()
        assert [event.seq for event in events] == [seq]
    assert tail.offset == path.stat().st_size


def test_stream_catches_up_after_an_outage_of_redis(
    site: Site, claimed: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("webapp.runs.ingest.WIRE_PAUSE_SECONDS", 0.0)
    writer = EventWriter(tmp_path / "events.jsonl")
    ingest = Ingest(claimed, tmp_path / "events.jsonl")
    write_steps(writer, 1, 5)
    ingest.ship()
    site.kill("redis")
    for step in range(6, 9):
        write_steps(writer, step, step)
        ingest.ship()
    assert Record.objects.filter(run=claimed).count() == 8
    assert caplog.text.count("Redis does not answer") == 1
    site.start_redis()
    ingest.ship()
    assert ids(site, claimed) == [f"1-{seq}" for seq in range(1, 9)]
    ingest.close()


def test_batch_whose_answer_was_lost_is_sent_once(site: Site, claimed: Run, tmp_path: Path) -> None:
    write_steps(EventWriter(tmp_path / "events.jsonl"), 1, 5)
    first, second = (Wire(claimed.id, 1, tmp_path / "events.jsonl") for _ in range(2))
    assert first.ship()
    assert second.ship()
    assert not second.ended
    assert ids(site, claimed) == [f"1-{seq}" for seq in range(1, 6)]


def test_stream_refuses_an_older_attempt(site: Site, claimed: Run, tmp_path: Path) -> None:
    write_steps(EventWriter(tmp_path / "events.jsonl"), 1, 5)
    newer, older = (Wire(claimed.id, attempt, tmp_path / "events.jsonl") for attempt in (2, 1))
    newer.ship()
    older.ship()
    assert older.ended
    assert ids(site, claimed) == [f"2-{seq}" for seq in range(1, 6)]


def test_archive_catches_up_after_an_outage_of_the_database(
    site: Site, claimed: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = EventWriter(tmp_path / "events.jsonl")
    ingest = Ingest(claimed, tmp_path / "events.jsonl")
    write_steps(writer, 1, 3)

    def refuse(*_: Any) -> None:
        raise OperationalError("the database is away")

    with connection.execute_wrapper(refuse):
        assert ingest.ship() == []
        assert ingest.ship() == []
    assert caplog.text.count("the database does not answer") == 1
    assert ids(site, claimed) == ["1-1", "1-2", "1-3"]
    assert [event.seq for event in ingest.ship()] == [1, 2, 3]
    assert Record.objects.filter(run=claimed).count() == 3
    ingest.close()


@pytest.mark.parametrize("state", [State.QUEUED, State.SUCCEEDED])
def test_attempt_that_no_longer_holds_the_run_writes_nothing(site: Site, claimed: Run, tmp_path: Path, state: State) -> None:
    write_steps(EventWriter(tmp_path / "events.jsonl"), 1, 3)
    archive = Archive(claimed, tmp_path / "events.jsonl")
    Run.objects.filter(pk=claimed.pk).update(state=state)
    before = Run.objects.filter(pk=claimed.pk).values().get()
    with pytest.raises(Fenced):
        archive.ship()
    assert not Record.objects.exists()
    assert Run.objects.filter(pk=claimed.pk).values().get() == before


def test_older_attempt_writes_nothing(site: Site, claimed: Run, tmp_path: Path) -> None:
    write_steps(EventWriter(tmp_path / "events.jsonl"), 1, 3)
    archive = Archive(claimed, tmp_path / "events.jsonl")
    Run.objects.filter(pk=claimed.pk).update(attempt=2)
    with pytest.raises(Fenced):
        archive.ship()
    assert not Record.objects.exists()


def test_second_attempt_goes_on_with_the_summary(site: Site, claimed: Run, tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "1.jsonl")
    writer.emit("plan", total_steps=10, start_step=0)
    write_steps(writer, 1, 6)
    Archive(claimed, tmp_path / "1.jsonl").ship()
    failure = lease.Failure("infra", "lost", "")
    lease.interrupt(claimed.id, 1, actor="reaper", detail="", failure=failure, retries=3)
    again = lease.claim(claimed.id, "train1")
    assert again is not None
    writer = EventWriter(tmp_path / "2.jsonl")
    writer.emit("plan", total_steps=10, start_step=4)
    write_steps(writer, 5, 10)
    Archive(again, tmp_path / "2.jsonl").ship()
    again.refresh_from_db()
    assert again.summary["spark"] == [round(1.0 / step, 5) for step in range(1, 11)]
    assert again.summary["points"] == 12
    assert again.last_step == 10


@pytest.fixture
def lost(site: Site, claimed: Run) -> Run:
    """An attempt of six steps whose supervisor was killed when it had shipped three, and whose lease is long over."""
    claimed.attempt_folder(1).mkdir(parents=True)
    events = claimed.attempt_folder(1) / "events.jsonl"
    writer = EventWriter(events)
    writer.emit("plan", total_steps=10, start_step=0)
    write_steps(writer, 1, 3)
    ingest = Ingest(claimed, events)
    ingest.ship()
    ingest.close()
    write_steps(writer, 4, 6)
    Run.objects.filter(pk=claimed.pk).update(lease_expires_at=lease.after(-3600))
    return claimed


def test_the_reaper_ships_what_a_killed_supervisor_left(site: Site, lost: Run) -> None:
    with (lost.attempt_folder(1) / "events.jsonl").open("a") as file:
        file.write('{"v": 1, "seq": 8, "kind": "st')
    assert reap() == 1
    lost.refresh_from_db()
    assert list(Record.objects.filter(run=lost, kind="step").order_by("pk").values_list("attempt", "step")) == [
        (1, step) for step in range(1, 7)
    ]
    assert (lost.state, lost.last_step, lost.summary["points"]) == (State.QUEUED, 6, 6)
    assert lost.summary["spark"] == [round(1.0 / step, 5) for step in range(1, 7)]
    assert ids(site, lost) == [f"1-{seq}" for seq in range(1, 8)]


def test_what_is_too_much_for_a_round_goes_on_in_the_next(lost: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.runs.ingest.BATCHES", 0)
    assert reap() == 0
    assert Run.objects.get(pk=lost.pk).state == State.STARTING
    monkeypatch.undo()
    assert reap() == 1


@pytest.mark.parametrize(
    "line", [b"no event\n", b'{"seq": 8, "kind": "step"}\n', b'{"v": 1, "seq": 8, "kind": "step", "t": 1, "data": 1}\n']
)
def test_a_line_that_is_no_event_keeps_no_run_from_going_on(lost: Run, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with (lost.attempt_folder(1) / "events.jsonl").open("ab") as file:
        file.write(line)
    assert reap() == 1
    assert Run.objects.get(pk=lost.pk).state == State.QUEUED
    assert "its last events are not to be had" in caplog.text


def test_run_taken_meanwhile_is_left_alone(lost: Run) -> None:
    Run.objects.filter(pk=lost.pk).update(attempt=2)
    with pytest.raises(Fenced):
        ship_rest(lost)
    assert Record.objects.filter(run=lost).count() == 4
