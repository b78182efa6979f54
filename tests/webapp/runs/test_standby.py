"""The process that waits for a run: it becomes that run's child, or is passed over; it never outlives its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.flow.site import wait_for
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs import lease
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.cancel import cancel
from webapp.runs.standby import Standby
from webapp.runs.states import State
from webapp.runs.supervisor import Supervisor
from webapp.settings.env import ENV, PROJECT

pytestmark = pytest.mark.django_db(transaction=True)
TRAINER = (sys.executable, "-m", "tests.webapp.runs.trainer")


@pytest.fixture
def bench(transactional_db: None, settings: Any, tmp_path: Path) -> Bench:
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    return make_bench()


@pytest.fixture
def standby(bench: Bench) -> Iterator[Standby]:
    waiting = Standby("train0", command=(*TRAINER, "--standby"))
    yield waiting
    waiting.stop()


def supervise(bench: Bench, standby: Standby) -> Any:
    claimed = lease.claim(bench.launch().id, "train0")
    assert claimed is not None
    Supervisor(claimed, owner="train0", command=TRAINER, standby=standby).run()
    claimed.refresh_from_db()
    return claimed


def test_what_is_no_training_starts_from_scratch_and_none_waits_meanwhile(bench: Bench, standby: Standby) -> None:
    standby.start()
    waiting = standby.pid
    run = bench.launch()
    Run.objects.filter(pk=run.pk).update(kind=Kind.ANALYSE)
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    Supervisor(claimed, owner="train0", command=TRAINER, standby=standby).run()
    claimed.refresh_from_db()
    assert claimed.state == State.SUCCEEDED
    assert child_of(claimed)["HOME"] == str(claimed.attempt_folder(1) / "tmp")
    assert standby.pid is None
    assert waiting is not None
    assert not psutil.pid_exists(waiting)


def child_of(run: Any) -> dict[str, str]:
    """What the program noted of the environment it ran in."""
    lines = (run.attempt_folder(1) / "environment").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def test_the_waiting_process_becomes_the_run_s_child(bench: Bench, standby: Standby, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFT_SECRET_KEY", "hush")
    standby.start()
    pid = standby.pid
    assert pid is not None
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert standby.home.stat().st_mode & 0o777 == 0o700
    run = supervise(bench, standby)
    assert run.state == State.SUCCEEDED
    assert standby.pid is None
    environment = child_of(run)
    assert (environment["HOME"], environment["TMPDIR"]) == (str(standby.home), str(standby.home))
    assert "GRAFT_SECRET_KEY" not in environment
    assert not psutil.pid_exists(pid)


def test_the_run_s_log_holds_what_its_child_says(bench: Bench, standby: Standby) -> None:
    standby._command = (*TRAINER, "--standby", "--behave", "mute")
    standby.start()
    run = supervise(bench, standby)
    assert (run.state, run.message) == (State.FAILED, "Something in Graft failed: exit code 1\nTraceback: boom in the loop.")


def test_one_that_died_while_it_waited_is_passed_over(bench: Bench, standby: Standby) -> None:
    standby.start()
    assert standby.pid is not None
    os.kill(standby.pid, signal.SIGKILL)
    wait_for(lambda: standby.pid is None, 5)
    run = supervise(bench, standby)
    assert run.state == State.SUCCEEDED
    assert child_of(run)["HOME"] == str(run.attempt_folder(1) / "tmp")


def test_cancel_kills_the_whole_group_of_a_child_that_waited(bench: Bench, standby: Standby) -> None:
    standby._command = (*TRAINER, "--standby", "--behave", "grandchild", "--steps", "2000", "--seconds", "0.05")
    standby.start()
    claimed = lease.claim(bench.launch().id, "train0")
    assert claimed is not None
    cancel(claimed, actor="alice")
    supervisor = Supervisor(claimed, owner="train0", command=TRAINER, standby=standby)
    supervisor.run()
    claimed.refresh_from_db()
    assert claimed.state == State.CANCELLED
    group = supervisor._child.pid
    assert not [process for process in psutil.process_iter(["status"]) if process.info["status"] != "zombie" and _group(process) == group]


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def test_none_waits_where_the_setting_says_so(standby: Standby, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ENV, "warm_child", False)
    standby.start()
    assert standby.pid is None
    assert not standby.home.exists()


def test_a_new_one_takes_the_place_of_the_one_before(standby: Standby) -> None:
    standby.start()
    first = standby.pid
    (standby.home / "left").write_text("behind")
    standby.start()
    assert first is not None
    assert not psutil.pid_exists(first)
    assert standby.pid not in (None, first)
    assert not (standby.home / "left").exists()


STARTER = """
import sys, time
import django
django.setup()
from webapp.runs.standby import Standby
standby = Standby("other", command=sys.argv[1:])
standby.start()
print(standby.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("command", [(*TRAINER, "--standby"), (sys.executable, "-m", "jobs", "standby")])
def test_it_dies_with_its_worker(command: tuple[str, ...], tmp_path: Path) -> None:
    environment = {**os.environ, "GRAFT_VAR": str(tmp_path), "DJANGO_SETTINGS_MODULE": "webapp.settings.test"}
    arguments = [sys.executable, "-c", STARTER, *command]
    with subprocess.Popen(arguments, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert psutil.pid_exists(pid)
        starter.kill()
    wait_for(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE, 5)
