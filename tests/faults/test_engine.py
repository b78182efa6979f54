"""The real engine: killed amid saves, told to stop, fed weights that are no numbers, and in a machine without memory."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from django.test import Client
from django.urls import reverse
from safetensors.torch import load_file, save_file

from jobs.training import checkpoint
from tests.faults.figures import record
from tests.faults.memory import little_memory
from tests.faults.test_disks import LONG, ROWS, SHORT, ended
from tests.faults.waiting import behave, until, until_step, written, wrong_in_history
from tests.flow.site import Site, alive, wait_for
from tests.jobs.training.test_checkpoint import kill_writers
from tests.tiny import make_tiny_model
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Record
from webapp.runs.services.cancel import cancel
from webapp.runs.states import State
from webapp.settings.env import PROJECT

# The engine, imported once; forked for each line that it reads, and told of in one line when it has started and one when it has ended.
FORKS = """
import argparse, os, sys
from pathlib import Path
from jobs.commands import train
from jobs.imports import import_engine
train.prepare_environment()
import_engine(peft=True)
import jobs.run
import jobs.models.loading, jobs.data.tokens
spec, out, tokens = map(Path, sys.argv[1:])
for _ in sys.stdin:
    child = os.fork()
    if child:
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        continue
    arguments = argparse.Namespace(
        spec=spec, out=out, resume=[], token_cache=tokens, token_cache_bytes=10**9, parent_pid=None, leash=None, private=None,
        json=False,
    )
    try:
        os._exit(train.run(arguments))
    except BaseException:
        os._exit(1)
"""


@pytest.fixture
def engine_bench(site: Site) -> Bench:
    bench = make_bench(rows=ROWS)
    make_tiny_model(bench.base_model.folder)
    return bench


def test_f45_f46_a_hundred_kills_of_who_saves(tmp_path: Path) -> None:
    torn, reached = kill_writers(tmp_path, 100)
    record("torn", torn, f"{reached} checkpoints written, of which the newest is always whole")
    assert torn == 0


def test_f13_f45_the_engine_killed_amid_its_saves_goes_on(site: Site, engine_bench: Bench, tmp_path: Path) -> None:
    """Every step is saved, so that most kills meet a save; some come after a SIGTERM, as where the grace is too short."""
    from webapp.runs.services.handed import handed

    often = {**LONG, "training": {**LONG["training"], "epochs": 15.0, "checkpoint_every_steps": 1}}
    spec = tmp_path / "spec.json"
    spec.write_text(json.dumps(handed(engine_bench.launch(**often))))
    out = tmp_path / "out"
    chance = random.Random(45)  # noqa: S311 moments, no secrets
    command = [sys.executable, "-c", FORKS, str(spec), str(out), str(tmp_path / "tokens")]
    failed, reached = 0, 0
    with subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as forks:
        assert forks.stdin is not None
        assert forks.stdout is not None
        for kill in range(10):
            print("go", file=forks.stdin, flush=True)
            pid = int(forks.stdout.readline())
            before = checkpoint.newest([out])
            wait_for(lambda before=before: checkpoint.newest([out]) != before, 60, every=0.01)
            time.sleep(chance.uniform(0, 0.1))
            with suppress(ProcessLookupError):
                if kill % 3 == 0:
                    os.kill(pid, signal.SIGTERM)
                    time.sleep(chance.uniform(0, 0.05))
                os.kill(pid, signal.SIGKILL)
            forks.stdout.readline()
            newest = checkpoint.newest([out])
            assert newest is not None
            failed += int(newest.name.removeprefix("step-")) <= reached
            reached = int(newest.name.removeprefix("step-"))
        print("go", file=forks.stdin, flush=True)
        forks.stdout.readline()
        failed += int(forks.stdout.readline()) != 0
        forks.stdin.close()
    record("unresumed", failed, "10 kills, then to the end")
    assert failed == 0


def test_f12_f50_the_engine_is_told_to_stop(site: Site, engine_bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker()
    run = engine_bench.launch(**LONG)
    until_step(run, 3, seconds=100)
    (training,) = site.trainings()
    assert Path(f"/proc/{training.pid}/oom_score_adj").read_text().strip() == "800"
    assert Path(f"/proc/{training.ppid()}/oom_score_adj").read_text().strip() == "0"
    began = time.monotonic()
    site.kill("train0", signal.SIGTERM)
    seconds = time.monotonic() - began
    run.refresh_from_db()
    told = [event["data"]["step"] for event in written(site.var, run)[1] if event["kind"] == "step"]
    record("sigterm", seconds, "the real engine among them")
    record("lost_steps", told[-1] - run.last_checkpoint_step)
    assert (run.state, run.last_checkpoint_step, run.infra_failures) == (State.QUEUED, told[-1], 0)
    assert checkpoint.verify(run.attempt_folder(1) / "checkpoints" / f"step-{told[-1]:08}")


def test_f42_f51_a_loss_that_is_no_number(site: Site, engine_bench: Bench) -> None:
    weights = engine_bench.base_model.folder / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.norm.weight"][:] = float("nan")
    save_file(tensors, weights, metadata={"format": "pt"})
    site.start_dispatcher()
    site.start_worker()
    run = ended(engine_bench.launch(**SHORT), State.FAILED)
    steps = list(Record.objects.filter(run=run, kind="step").values_list("data", flat=True))
    record("nonfinite", len(steps))
    assert (run.failure_code, run.exit_code) == ("nonfinite", 79)
    assert len(steps) == 3
    assert all(step["loss"] is None and step["nonfinite"] for step in steps)
    client = Client()
    client.force_login(engine_bench.user)
    page = client.get(reverse("runs:detail", args=[run.pk]))
    assert page.status_code == 200
    assert "was not finite for 3 steps" in page.text


def test_f10_f50_the_kernel_takes_the_training_and_leaves_the_worker(site: Site, bench: Bench) -> None:
    with little_memory(500) as procs:
        site.start_dispatcher()
        # The shell puts itself into the group, then becomes the worker.
        site.environment["GRAFT_WARM_CHILD"] = "false"
        inside = f"echo $$ > {procs} && exec "
        arguments = ["-Q", "train", "-c", "1", "-n", "train0@site", "--without-gossip", "--without-mingle", "-l", "INFO"]
        worker = " ".join([sys.executable, "-m", "celery", "-A", "tests.flow.app", "worker", *arguments])
        process = site.start("train0", "/bin/sh", "-c", inside + worker, FLOW_TRAINER="--steps 5 --seconds 0.02")
        wait_for(lambda: "ready." in site.log("train0"), 60)
        run, following = bench.launch(), bench.launch(name="next")
        behave(site, run, "--steps 5 --behave eat")
        until(run, State.FAILED, 90)
        until(following, State.SUCCEEDED)
        record("out_of_memory", run.attempt, "really killed by the kernel")
        assert (run.failure_code, process.poll()) == ("host_oom", None)
        assert run.attempt <= 5
        assert wrong_in_history(run) == []
        site.stop()


COMPILER = """
import subprocess
from jobs.training import compiling
compiling.compile_geometry = lambda *_: subprocess.run(["sleep", "600"], check=True)
compiling.geometry_from = lambda body: body
raise SystemExit(compiling.main([{folder!r}, {parent}]))
"""
PARENT = """
import os, subprocess, sys, time
script = sys.argv[1].replace("PARENT", str(os.getpid()))
subprocess.run([sys.executable, "-c", script], input=b"[1]")
"""


def test_f7_a_compiler_and_what_it_started_die_with_the_training(tmp_path: Path) -> None:
    script = COMPILER.format(folder=str(tmp_path), parent="PARENT")
    parent = subprocess.Popen([sys.executable, "-c", PARENT, script], cwd=PROJECT)
    tree: list[psutil.Process] = wait_for(lambda: len(found := psutil.Process(parent.pid).children(recursive=True)) == 2 and found, 60)
    assert [process.name() for process in tree][-1] == "sleep"
    parent.kill()
    parent.wait()
    pids = {process.pid for process in tree}
    wait_for(lambda: not pids & {process.pid for process in alive()}, 2)
    record("survivors", 0, "the engine's compiler and its children")


def test_nothing_is_left_of_a_cancelled_engine(site: Site, engine_bench: Bench) -> None:
    site.start_dispatcher()
    site.start_worker()
    run = engine_bench.launch(**LONG)
    until_step(run, 1, seconds=100)
    (training,) = site.trainings()
    tree = [training, *training.children(recursive=True)]
    cancel(run, actor="alice")
    until(run, State.CANCELLED)
    assert not {process.pid for process in tree} & {process.pid for process in alive()}
    left: Any = sorted(path.name for path in run.attempt_folder(1).iterdir())
    assert "tmp" not in left
    assert "leash" not in left
