"""A child may work until its leash says so, and not a moment longer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.leash import Leash, clock, let_out

CHILD = """
import sys, time
from pathlib import Path
from jobs.leash import Leash
Leash(Path(sys.argv[1])).start()
print("works", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("seconds", "over"), [(60, False), (-0.01, True)])
def test_its_time(tmp_path: Path, seconds: float, over: bool) -> None:
    path = tmp_path / "leash"
    assert not Leash(path).is_over, "no word is no end: the supervisor has not spoken yet"
    let_out(path, clock() - 5)
    let_out(path, clock() + seconds)
    assert Leash(path).is_over is over
    assert path.stat().st_mode & 0o777 == 0o600


def test_one_that_was_taken_away_is_over(tmp_path: Path) -> None:
    path = tmp_path / "leash"
    leash = Leash(path)
    let_out(path, clock() + 60)
    assert not leash.is_over
    path.unlink()
    assert leash.is_over


def test_half_a_word_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "leash"
    path.write_bytes(b"\0\0\0")
    assert not Leash(path).is_over


def test_it_ends_the_process_and_its_group(tmp_path: Path) -> None:
    path = tmp_path / "leash"
    let_out(path, clock() + 60)
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout is not None
    assert child.stdout.readline() == b"works\n"
    assert child.poll() is None
    let_out(path, clock())
    assert child.wait(10) == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
    child.stdout.close()
