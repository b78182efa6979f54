"""A checkpoint is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs.errors import GraftError
from jobs.training import checkpoint

KILLS = 20
# Imports torch once, then forks a writer for each line that it reads, and tells its process id.
WRITERS = """
import os, sys, torch
from pathlib import Path
from jobs.training import checkpoint
torch.set_num_threads(1)
folder = Path(sys.argv[1])
for _ in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        os.waitpid(child, 0)
        print("dead", flush=True)
        continue
    found = checkpoint.newest([folder])
    step = checkpoint.read_state(found)["step"] if found else 0
    while True:
        step += 1
        tensors = {"w": torch.full((200_000,), float(step))}
        checkpoint.save(folder, step, weights=tensors, optimiser=tensors, state={}, best=step % 3 == 0)
        checkpoint.rotate(folder)
"""


def _save(folder: Path, step: int, *, best: bool = False) -> checkpoint.Saved:
    tensors = {"w": torch.full((1000,), float(step))}
    return checkpoint.save(folder, step, weights=tensors, optimiser={}, state={"seed": 1}, best=best)


def test_it_comes_back_as_it_went(tmp_path):
    saved = _save(tmp_path, 7, best=True)
    weights, optimiser = checkpoint.read_weights(saved.path), checkpoint.read_moments(saved.path)
    assert saved.path.name == "step-00000007"
    assert torch.equal(weights["w"], torch.full((1000,), 7.0))
    assert optimiser == {}
    assert checkpoint.read_state(saved.path) == {"seed": 1, "step": 7, "best": True}
    assert saved.bytes == sum(path.stat().st_size for path in saved.path.iterdir() if path.name != "MANIFEST.json")


@pytest.mark.parametrize("damage", ["flip", "cut", "missing", "no manifest"])
def test_a_torn_one_is_passed_over(damage, tmp_path):
    older, newer = _save(tmp_path / "checkpoints", 1).path, _save(tmp_path / "checkpoints", 2).path
    file = newer / ("MANIFEST.json" if damage == "no manifest" else "weights.safetensors")
    if damage == "flip":
        body = bytearray(file.read_bytes())
        body[-1] ^= 1
        file.write_bytes(body)
    elif damage == "cut":
        os.truncate(file, file.stat().st_size - 1)
    else:
        file.unlink()
    assert not checkpoint.verify(newer)
    assert checkpoint.newest([tmp_path]) == older


def test_the_newest_of_several_folders(tmp_path):
    for name, step in (("a", 3), ("b", 11), ("c", 9)):
        _save(tmp_path / name / "checkpoints", step)
    folders = [tmp_path / name for name in ("a", "b", "c", "absent")]
    assert checkpoint.newest(folders) == tmp_path / "b" / "checkpoints" / "step-00000011"
    assert checkpoint.newest([tmp_path / "c" / "checkpoints"]).name == "step-00000009"
    assert checkpoint.newest([tmp_path / "absent"]) is None


def test_rotation_keeps_the_newest_two_and_the_best(tmp_path):
    for step in range(1, 7):
        _save(tmp_path, step, best=step in (1, 3))
        checkpoint.rotate(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000005", "step-00000006"]


def test_rotation_deletes_nothing_while_the_newest_is_torn(tmp_path):
    for step in (1, 2, 3):
        newest = _save(tmp_path, step).path
    (newest / "weights.safetensors").unlink()
    checkpoint.rotate(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch):
    good = _save(tmp_path, 1).path

    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GraftError) as refused:
        _save(tmp_path, 2)
    monkeypatch.undo()
    assert (refused.value.code, int(refused.value.exit_code)) == ("disk_full", 81)
    assert list(tmp_path.iterdir()) == [good]
    assert checkpoint.verify(good)


def test_killed_at_random_none_is_torn(tmp_path):
    torn, reached = kill_writers(tmp_path, KILLS)
    assert torn == 0
    assert reached > KILLS / 2


def kill_writers(tmp_path, kills):
    """SIGKILL at random moments: there always is a checkpoint to go on from. Gives how many were torn, and the last step."""
    moments = random.Random(0)  # noqa: S311 moments, no secrets
    torn, reached, usual = 0, 0, 0.0
    command = [sys.executable, "-c", WRITERS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        assert writers.stdin is not None
        assert writers.stdout is not None
        for _ in range(kills):
            print("go", file=writers.stdin, flush=True)
            writer = int(writers.stdout.readline())
            began = time.monotonic()
            while not list(tmp_path.glob("step-*")):
                time.sleep(0.01)
            # The first wait is for one save, however slow the disk: the moments lie within the next few.
            usual = usual or time.monotonic() - began
            time.sleep(moments.uniform(0, min(3 * usual, 1.0)))
            os.kill(writer, signal.SIGKILL)
            assert writers.stdout.readline() == "dead\n"
            visible = sorted(tmp_path.glob("step-*"))
            assert visible
            torn += sum(not checkpoint.verify(path) for path in visible)
            step = checkpoint.read_state(checkpoint.newest([tmp_path]))["step"]
            assert step >= reached
            reached = step
        writers.stdin.close()
    return torn, reached


def test_by_time_it_is_not_due_before_its_time():
    clock = checkpoint.Clock(100, None)
    assert not clock.due(50, best=False)
    assert clock.due(100, best=False)
    clock.saved(50, 1000.0)
    assert not clock.due(60, best=True), "writing took long, so even a best one waits"


def test_by_steps_it_is_due_at_each_multiple():
    clock = checkpoint.Clock(10, 4)
    assert [step for step in range(1, 11) if clock.due(step, best=True)] == [4, 8, 10]
