"""`manage.py up`: one command brings everything up, keeps it up, and takes everything down."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.flow.site import wait_for
from tests.flow.up import HOST, Up, dead, running_up
from webapp.operate.up.site import web_answers
from webapp.settings.env import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture
def up() -> Iterator[Up]:
    with running_up({"GRAFT_SAMPLE_MODEL": "/nowhere", "GRAFT_HEARTBEAT_SECONDS": "0.5"}) as running:
        yield running


def again(up: Up, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "manage.py", "up", *options]
    return subprocess.run(command, cwd=PROJECT, env=up.environment, capture_output=True, text=True, timeout=60, check=False)


def test_up_keeps_alive_refuses_a_second_and_leaves_nothing(up: Up) -> None:
    up.ready()
    text = up.text()
    assert f"Graft is at http://{HOST}:{up.port}" in text
    assert text.count("user name: admin   password: ") == 1
    assert "embedded redis-server" in text
    modes = {path.name: path.stat().st_mode & 0o777 for path in (up.var, *up.var.iterdir())}
    assert {name for name, mode in modes.items() if mode & 0o077} == set()
    assert modes["secret-key"] == 0o600

    second = again(up)
    assert second.returncode == 1
    assert f"runs already (process {up.process.pid})" in second.stderr

    up.named("uvicorn").kill()
    up.named("redis-server").kill()
    wait_for(lambda: "web        | ended with -9" in up.text() and "redis      | ended with -9" in up.text(), 10)
    wait_for(lambda: web_answers(HOST, up.port), 30)
    wait_for(lambda: len(up.tree()) >= 7, 30)

    processes = up.tree()
    began = time.monotonic()
    assert up.interrupt(15) == 0
    assert time.monotonic() - began < 10
    assert dead(processes)


def test_a_second_start_repeats_nothing_and_a_killed_one_leaves_nothing(up: Up) -> None:
    up.ready()
    key = (up.var / "secret-key").read_text()
    notes = json.loads((up.var / "prepared.json").read_text())
    processes = up.tree()
    up.process.kill()
    up.process.wait()
    wait_for(lambda: dead(processes), 5)

    up.output.unlink()
    began = time.monotonic()
    up.process = up.start()
    wait_for(lambda: "Graft is at" in up.text(), 60)
    spent = time.monotonic() - began
    up.ready()

    assert "password:" not in up.text()
    assert (up.var / "secret-key").read_text() == key
    assert json.loads((up.var / "prepared.json").read_text()) == notes
    # The promise is 10 s; the rest is for a machine that is busy with other tests.
    assert spent < 30


def test_a_taken_port_is_said(up: Up) -> None:
    up.ready()
    elsewhere = {**up.environment, "GRAFT_VAR": str(up.var.parent / "other")}
    command = [sys.executable, "manage.py", "up", "--port", str(up.port)]
    answer = subprocess.run(command, cwd=PROJECT, env=elsewhere, capture_output=True, text=True, timeout=60, check=False)

    assert answer.returncode == 1
    assert f"Port {up.port} on {HOST} is taken by another program." in answer.stderr
    assert not (up.var.parent / "other" / "graft.sqlite3").exists()
