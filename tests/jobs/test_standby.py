"""`python -m jobs standby`: it waits with everything imported and nothing begun, then is the run that it is told."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil

from jobs.errors import ExitCode
from jobs.events import read_events
from jobs.handover import HandOver
from tests.jobs import test_run
from tests.jobs.test_run import folder  # noqa: F401

COMMAND = [sys.executable, "-m", "jobs", "standby", "--parent-pid"]


def start(parent: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen([*COMMAND, str(parent)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_hand_over_is_read_as_it_was_written():
    told = HandOver("spec", "out", ("a", "b"), "cache", 5, "log", "leash", "private")
    assert HandOver.from_line(told.to_line()) == told
    assert told.to_line().count(b"\n") == 1


def test_it_ends_when_nobody_can_give_it_a_run():
    with start(os.getpid()) as process:
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == ExitCode.DONE
    assert start(1).wait(60) == ExitCode.INTERNAL


def test_it_waits_without_a_thread_or_a_child_and_then_trains(folder, tmp_path):  # noqa: F811
    log = tmp_path / "child.log"
    spec = test_run.write_spec(folder, "ahead", training={"max_steps": 2, "precision": "float32"})
    places = {"out": tmp_path / "out", "token_cache": tmp_path / "tokens", "log": log, "leash": tmp_path / "out" / "leash"}
    told = HandOver(
        str(spec), resume=(), token_cache_bytes=10**9, private=str(tmp_path), **{name: str(path) for name, path in places.items()}
    )
    with start(os.getpid()) as process:
        waiting = psutil.Process(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        assert b"ready\n" in iter(process.stdout.readline, b"")
        assert any("libtorch" in region.path for region in waiting.memory_maps())
        assert (waiting.num_threads(), waiting.children()) == (1, [])
        process.stdin.write(told.to_line())
        process.stdin.close()
        assert process.wait(120) == ExitCode.DONE, log.read_text()
        assert process.stdout.read() == b""
    kinds = [event.kind for event in read_events(tmp_path / "out" / "events.jsonl")]
    assert (kinds[-1], kinds.count("step")) == ("finished", 2)
    assert log.exists()
    assert len(list((tmp_path / "tokens").iterdir())) == 2
