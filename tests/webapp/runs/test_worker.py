"""What makes a Celery worker ours; with processes it is tested in tests/flow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from webapp.runs import worker
from webapp.runs.models import Worker
from webapp.settings.env import ENV, PROJECT

GPU = {"kind": "cuda", "name": "GPU", "memory_bytes": 1, "threads": 2, "bfloat16": True, "count": 2}


def test_no_torch_in_a_worker() -> None:
    script = (
        "import sys\nfrom webapp.celery import app\napp.loader.import_default_modules()\nimport webapp.runs.worker\n"
        "heavy = {'torch', 'transformers', 'peft', 'bitsandbytes'} & set(sys.modules)\n"
        "assert 'runs.train' in app.tasks, sorted(app.tasks)\nassert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], cwd=PROJECT, check=True, timeout=60)


def test_probe_is_the_engines_answer() -> None:
    answer = subprocess.run([sys.executable, "-m", "jobs", "device", "--json"], cwd=PROJECT, check=True, capture_output=True)
    assert worker.probe() == json.loads(answer.stdout)


def test_beat_writes_the_row_once_and_keeps_the_run(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.connections, "close_all", lambda: None)
    monkeypatch.setattr(worker, "_device", GPU)
    worker.beat("train0", run=None)
    first = Worker.objects.get()
    worker.beat("train0")
    second = Worker.objects.get()
    assert second.pk == first.pk
    assert second.seen_at > first.seen_at
    assert (second.queue, second.device) == ("train", GPU)


@pytest.mark.parametrize(
    ("visible", "device", "names"),
    [
        (None, {}, ["cpu-train0"]),
        (None, {"kind": "cpu"}, ["cpu-train0"]),
        (None, GPU, ["cuda-0", "cuda-1"]),
        ("1", GPU, ["cuda-1"]),
        ("3, 0", GPU, ["cuda-0", "cuda-3"]),
    ],
)
def test_devices_of_a_worker(monkeypatch: pytest.MonkeyPatch, visible: str | None, device: dict[str, Any], names: list[str]) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert worker.device_names("train0", device) == names


def test_two_trainings_never_share_a_gpu(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.GRAFT_VAR = tmp_path
    monkeypatch.setattr(worker, "_device", GPU)
    with worker.device_locks("train0") as first:
        assert first
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with worker.device_locks("train1") as second:
            assert not second
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        with worker.device_locks("train2") as third:
            assert third
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with worker.device_locks("train1") as later:
        assert later


def test_an_idle_worker_that_leaves_doorbells_where_they_are_is_deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(worker.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(ENV, "deaf_seconds", 30.0)
    hearing = worker.Hearing()

    def at(seconds: float, *, idle: bool = True, waiting: int = 1) -> bool:
        now[0] = seconds
        return hearing.is_lost(idle=idle, waiting=waiting)

    assert [at(0), at(20), at(29), at(30)] == [False, False, False, True]
    # A doorbell that was taken, or work, begins the time anew.
    assert [at(31, waiting=0), at(40), at(60), at(65, idle=False), at(70), at(99), at(100)] == [False] * 6 + [True]
