"""Processes die with their parent, through three levels and sessions of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from webapp.core.processes import PARENT_VARIABLE, die_with_parent, group_members, signal_group
from webapp.settings.env import PROJECT

# Each level starts the next in a session of its own and prints its pid; the last one waits.
LEVEL = """
import os, subprocess, sys, time
from webapp.core.processes import die_with_parent
die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
depth = int(sys.argv[2])
if depth:
    subprocess.Popen([sys.executable, "-c", sys.argv[3], str(os.getpid()), str(depth - 1), sys.argv[3]], start_new_session=True)
time.sleep(600)
"""


def dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_killed_process_takes_three_levels_with_it() -> None:
    top = subprocess.Popen(
        [sys.executable, "-c", LEVEL, str(os.getpid()), "2", LEVEL], cwd=PROJECT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert top.stdout is not None
    pids = [int(top.stdout.readline()) for _ in range(3)]
    assert pids[0] == top.pid
    top.kill()
    top.wait()
    until = time.monotonic() + 2
    while not all(dead(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.01)
    top.stdout.close()


def test_a_parent_that_is_dead_already_means_now() -> None:
    script = "from webapp.core.processes import die_with_parent\ndie_with_parent(1 << 22)\nprint('alive')"
    child = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, check=False)
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, b"")


def test_started_by_hand_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    die_with_parent()


def test_launcher_carries_it_over_exec() -> None:
    script = f"""
import os, subprocess, sys
os.environ["{PARENT_VARIABLE}"] = str(os.getpid())
child = subprocess.Popen([sys.executable, "-m", "webapp.core.processes", "sleep", "600"])
while "sleep" not in open(f"/proc/{{child.pid}}/comm").read(): pass
print(child.pid, flush=True)
"""
    parent = subprocess.run([sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=30, check=True)
    until = time.monotonic() + 2
    while not dead(int(parent.stdout)):
        assert time.monotonic() < until
        time.sleep(0.01)


def test_members_of_a_group_without_its_zombies() -> None:
    leader = subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600"], start_new_session=True)
    while len(group_members(leader.pid)) < 3:
        time.sleep(0.01)
    leader.kill()
    while leader.pid in group_members(leader.pid):
        time.sleep(0.01)
    # Not waited for, the leader is a zombie now; its children live on.
    assert len(group_members(leader.pid)) == 2
    signal_group(leader.pid, signal.SIGKILL)
    leader.wait()
    until = time.monotonic() + 2
    while group_members(leader.pid):
        assert time.monotonic() < until
        time.sleep(0.01)
    signal_group(leader.pid, signal.SIGKILL)
