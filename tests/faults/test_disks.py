"""The disk is full: amid a checkpoint, an upload, a merge, in the database. What is there stays whole, and all goes on with room again."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.urls import reverse

from jobs.training import checkpoint
from tests.faults.disks import small_disk
from tests.faults.figures import record
from tests.faults.waiting import until, wrong_in_history
from tests.flow.site import Site, wait_for
from tests.tiny import make_tiny_model, tiny_config
from tests.webapp.runs.rows import Bench, make_bench
from webapp.datasets.models import Upload
from webapp.runs.models import Record, Run
from webapp.runs.services.retry import retry
from webapp.runs.states import State
from webapp.settings.env import PROJECT

ROWS = [{"prompt": f"Say {number}: ", "completion": "even" if number % 2 == 0 else "odd"} for number in range(32)]
LONG: dict[str, Any] = {
    "settings": {"rank": 4},
    "training": {"epochs": 500.0, "micro_batch": 4, "gradient_accumulation": 1, "precision": "float32", "checkpoint_every_steps": 4},
    "evaluation": {"generate": False, "samples": 0},
    "export": {"merge": "none"},
}
SHORT = {**LONG, "training": {**LONG["training"], "epochs": 2.0}}


def ended(run: Run, state: State, seconds: float = 200) -> Run:
    def arrived() -> bool:
        run.refresh_from_db()
        assert run.state == state or not run.is_terminal, f"{run.state}: {run.message}"
        return run.state == state

    wait_for(arrived, seconds)
    return run


def test_f52_amid_a_checkpoint(site: Site) -> None:
    bench = make_bench(rows=ROWS)
    make_tiny_model(bench.base_model.folder)
    with small_disk(site.var / "runs", 32) as disk:
        site.start_dispatcher()
        site.start_worker()
        run = bench.launch(**LONG)
        wait_for(lambda: Record.objects.filter(run=run, kind="checkpoint").count() >= 2, 100)
        disk.fill()
        full = time.monotonic()
        ended(run, State.FAILED, 30)
        seconds = time.monotonic() - full
        record("disk_full", seconds, "amid the checkpoints of a training")
        assert (run.failure_code, run.exit_code) == ("disk_full", 81)
        assert run.remedy
        assert seconds <= 10
        good = checkpoint.newest([run.attempt_folder(1)])
        assert good is not None
        assert not list(run.attempt_folder(1).glob("checkpoints/.tmp-*"))
        client = Client()
        client.force_login(bench.user)
        assert client.get(reverse("runs:detail", args=[run.pk])).status_code == 200
        disk.free()
        retry(run, actor="alice")
        wait_for(lambda: Record.objects.filter(run=run, attempt=2, kind="step").exists(), 60)
        first = Record.objects.filter(run=run, attempt=2, kind="step").earliest("seq")
        assert first.step == int(good.name.removeprefix("step-")) + 1
        site.stop()


def test_f52_f57_amid_a_merge(site: Site) -> None:
    """What was trained is not trained again: the second attempt goes from the last checkpoint straight to the export."""
    bench = make_bench(rows=ROWS)
    make_tiny_model(bench.base_model.folder, config=tiny_config(intermediate_size=16_384))
    with small_disk(site.var / "runs", 40) as disk:
        # Room for checkpoints of an adapter, none for the model of 26 MB.
        disk.fill(leave=22 * 2**20)
        site.start_dispatcher()
        site.start_worker()
        run = bench.launch(**{**SHORT, "export": {"merge": "original"}})
        ended(run, State.FAILED)
        assert run.failure_code in ("disk_full", "disk_space")
        assert run.exit_code == 81
        last = checkpoint.newest([run.attempt_folder(1)])
        assert last is not None
        assert last.name == f"step-{run.total_steps:08}"
        assert not (run.attempt_folder(1) / ".export").exists()
        assert not run.artifacts.exists()
        disk.free()
        subprocess.run(["mount", "-o", "remount,size=200m", str(disk.path)], check=True)
        retry(run, actor="alice")
        ended(run, State.SUCCEEDED)
        assert set(run.artifacts.values_list("kind", "attempt")) == {("adapter", 2), ("merged", 2)}
        assert not Record.objects.filter(run=run, attempt=2, kind="step").exists()
        # The end of the first attempt, and that of the second.
        assert wrong_in_history(run) == ["two ends"]
        site.stop()


def test_f52_amid_an_upload(site: Site, bench: Bench) -> None:
    client = Client()
    client.force_login(bench.user)
    tus = {"Tus-Resumable": "1.0.0"}
    body = os.urandom(3 * 2**20)
    with small_disk(site.var / "uploads", 4) as disk:
        length = {"Upload-Length": str(2 * len(body))}
        url = client.post(reverse("datasets:upload-create", args=[bench.team.slug]), headers={**tus, **length})["Location"]

        def part(offset: int) -> int:
            headers = {**tus, "Upload-Offset": str(offset)}
            return client.patch(url, data=body, content_type="application/offset+octet-stream", headers=headers).status_code

        assert part(0) == 204
        assert part(len(body)) == 507
        upload = Upload.objects.latest("created_at")
        assert (upload.bytes_received, upload.path.read_bytes()) == (len(body), body)
        assert client.head(url, headers=tus)["Upload-Offset"] == str(len(body))
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk.path)], check=True)
        assert part(len(body)) == 204
        assert upload.path.read_bytes() == 2 * body


WRITER = """
import json, sys, uuid
import django
django.setup()
from django.db import DatabaseError, connection
from webapp.work.models import OutboxMessage
from webapp.work.outbox import ring
said = ""
before = OutboxMessage.objects.count()
written = 0
try:
    for _ in range(int(sys.argv[1])):
        ring("nobody.listens", uuid.uuid4(), "short" * 8)
        written += 1
except DatabaseError as failure:
    said = str(failure)
print(json.dumps({"said": said, "written": written, "counted": OutboxMessage.objects.count() - before}))
"""


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_f53_the_databases_disk_is_full(site: Site, bench: Bench, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 24) as disk:
        database = disk.path / "graft.sqlite3"
        with sqlite3.connect(connection.settings_dict["NAME"]) as source, sqlite3.connect(database) as copy:
            source.backup(copy)
        disk.fill(leave=600_000)

        def write(rows: int) -> dict[str, Any]:
            environment = {**site.environment, "DATABASE_URL": f"sqlite:///{database}"}
            command = [sys.executable, "-c", WRITER, str(rows)]
            done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
            return dict(json.loads(done.stdout))

        full = write(100_000)
        assert "full" in full["said"]
        # What was said to be written is there, and no more.
        assert full["counted"] == full["written"]
        with sqlite3.connect(database) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        disk.free()
        assert write(50) == {"said": "", "written": 50, "counted": 50}


def test_runs_of_a_site_whose_uploads_are_full_go_on(site: Site, bench: Bench) -> None:
    with small_disk(site.var / "uploads", 1) as disk:
        disk.fill()
        site.start_dispatcher()
        site.start_worker(trainer="--steps 3 --seconds 0.02")
        assert until(bench.launch(), State.SUCCEEDED).attempt == 1
