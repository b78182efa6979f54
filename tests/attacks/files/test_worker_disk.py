"""A45, A46, A70: what a training reaches of the host, should a stranger's model have taken it over."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.confinement import can_limit_files
from jobs.events import read_events
from tests.tiny import make_tiny_model
from webapp.runs.child import RunChild
from webapp.settings.env import ENV, PROJECT

# What has been taken over tries everything, and tells what it got.
TAKEN_OVER = """
import argparse, json, os, socket, subprocess, sys
from pathlib import Path
from jobs.commands.reach import leave_to_others

told = json.load(open(sys.argv[1]))
leave_to_others(argparse.Namespace(**{name: Path(told[name]) for name in ("private", "spec", "out", "token_cache")}, resume=[], leash=None))

def tried(work):
    try:
        return str(work())
    except OSError as failure:
        return type(failure).__name__

def connect(family, address):
    with socket.socket(family) as one:
        one.connect(address)

print(json.dumps({
    "read": {path: tried(lambda: Path(path).read_text()) for path in told["read"]},
    "listed": {path: tried(lambda: os.listdir(path)) for path in told["listed"]},
    "written": {path: tried(lambda: Path(path).write_text("x")) for path in told["written"]},
    "linked": tried(lambda: os.symlink("/etc/hostname", told["out"] + "/artifact.zip")),
    "redis": tried(lambda: connect(socket.AF_UNIX, told["redis"])),
    "loopback": tried(lambda: connect(socket.AF_INET, ("127.0.0.1", told["port"]))),
    "signal": tried(lambda: os.kill(os.getppid(), 0)),
    "environment": tried(lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes()),
    "engine": subprocess.run([sys.executable, "-c", "import jobs.spec; print('found')"], capture_output=True, text=True).stdout.strip(),
}))
"""


@pytest.fixture
def site(tmp_path: Path) -> dict[str, Any]:
    """The folder of a site with two teams in it, as `docs/architecture.md` draws it; ours is `a`."""
    var = tmp_path / "var"
    for name in ("models/a/config.json", "models/b/config.json", "datasets/a/train.jsonl", "datasets/b/train.jsonl", "uploads/b",
                 "runs/b/attempt-1/adapter.zip", "secret-key", "graft.sqlite3", "redis/redis.conf"):  # fmt: skip
        (var / name).parent.mkdir(parents=True, exist_ok=True)
        (var / name).write_text(name)
    (var / "models/a/tokenizer.json").symlink_to(var / "secret-key")
    out = var / "runs/a/attempt-1"
    out.mkdir(parents=True)
    # What people type may look like a path: it opens nothing.
    typed = {"name": str(var / "secret-key"), "method": {"id": "lora", "settings": {"target_modules": str(var / "models/b/config.json")}}}
    spec = {"model": {"path": str(var / "models/a"), "name": str(var / "graft.sqlite3")}, **typed}
    spec["data"] = {"train": str(var / "datasets/a/train.jsonl"), "mapping": {"instruction": str(var / "datasets/b/train.jsonl")}}
    (out / "spec.json").write_text(json.dumps(spec))
    return {"private": var, "spec": out / "spec.json", "out": out, "token_cache": var / "datasets/a/tokens", "home": out / "tmp"}


def taken_over(site: dict[str, Any], **tried: Any) -> dict[str, Any]:
    body = {name: str(path) for name, path in site.items()} | tried
    (site["out"] / "told.json").write_text(json.dumps(body, default=str))
    site["home"].mkdir()
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(site["home"]), "PYTHONPATH": str(PROJECT)}
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_OVER, str(site["out"] / "told.json")],
        cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(not can_limit_files(), reason="this kernel has no Landlock")
def test_a70_a_training_reaches_its_own_files_alone(site: dict[str, Any]) -> None:
    var = site["private"]
    ours = [var / "models/a/config.json", var / "datasets/a/train.jsonl", site["spec"], Path("/proc/cpuinfo")]
    theirs = [var / name for name in (
        "models/b/config.json", "datasets/b/train.jsonl", "uploads/b", "runs/b/attempt-1/adapter.zip", "secret-key", "graft.sqlite3",
        "redis/redis.conf", "models/a/tokenizer.json",
    )]  # fmt: skip
    kept, lost = (
        [site["out"] / "events.jsonl", site["token_cache"] / "ids"],
        [var / "models/a/config.json", var / "secret-key", var / "new"],
    )
    # A path longer than a socket's may be is no matter: it is bound and called from within its folder.
    redis, folder = socket.socket(socket.AF_UNIX), os.getcwd()
    with redis, socket.create_server(("127.0.0.1", 0)) as web:
        os.chdir(var / "redis")
        try:
            redis.bind("redis.sock")
        finally:
            os.chdir(folder)
        redis.listen()
        os.symlink(var / "redis", "/tmp/graft-test-redis-" + str(os.getpid()))
        try:
            found = taken_over(
                site, read=[*ours, *theirs], listed=[var, var / "models", var / "runs/b"], written=[*kept, *lost],
                redis=f"/tmp/graft-test-redis-{os.getpid()}/redis.sock", port=web.getsockname()[1],
            )  # fmt: skip
        finally:
            os.unlink("/tmp/graft-test-redis-" + str(os.getpid()))
    assert dict.fromkeys(map(str, theirs), "PermissionError").items() <= found["read"].items()
    assert not [path for path in ours if found["read"][str(path)] == "PermissionError"]
    assert set(found["listed"].values()) == {"PermissionError"}
    assert {path.name: found["written"][str(path)] for path in kept} == {"events.jsonl": "1", "ids": "1"}
    assert {found["written"][str(path)] for path in lost} == {"PermissionError"}
    assert (var / "secret-key").read_text() == "secret-key"
    assert [found[name] for name in ("linked", "redis", "loopback", "signal", "environment")] == ["PermissionError"] * 5
    assert found["engine"] == "found"


def test_every_run_of_the_site_is_held_so(tmp_path: Path) -> None:
    """Whatever the kind of run, the supervisor names the site's folder."""
    told: list[list[str]] = []

    class Told(RunChild):
        def _popen(self, command: list[str], output: Any) -> Any:
            told.append(command)
            return super()._popen([sys.executable, "-c", ""], output)

    child = Told(tmp_path / "attempt-1")
    child.start({}, [], token_cache=tmp_path / "tokens")
    while not child.is_gone:
        pass
    assert told[0][told[0].index("--private") + 1] == str(ENV.var.resolve())


def test_a70_a_training_so_held_trains_as_ever(tmp_path: Path) -> None:
    """Everything lies in the site's folder, as on a site: model, rows, token ids, home, compiled parts; it ends with its artifact, and is
    resumed from what an earlier attempt left.
    """
    var = tmp_path / "var"
    make_tiny_model(var / "models" / "a")
    rows = var / "datasets" / "a" / "train.jsonl"
    rows.parent.mkdir(parents=True)
    chat = [{"role": "user", "content": "Where is the parcel?"}, {"role": "assistant", "content": "On its way."}]
    rows.write_text("".join(json.dumps({"messages": chat}) + "\n" for _ in range(12)))
    (var / "secret-key").write_text("hush")
    spec = {
        "name": "held", "model": {"path": str(var / "models" / "a")}, "data": {"train": str(rows), "validation_share": 0.2},
        "method": {"id": "lora", "settings": {"rank": 2}},
        "training": {"max_steps": 2, "epochs": 100, "micro_batch": 4, "precision": "float32", "checkpoint_every_steps": 1},
        "evaluation": {"max_new_tokens": 2, "samples": 1}, "export": {"merge": "original"},
    }  # fmt: skip
    runs = var / "runs" / "a"
    outcomes = []
    for attempt, resume in ((1, ()), (2, (runs / "attempt-1" / "checkpoints",))):
        out = runs / f"attempt-{attempt}"
        (out / "tmp").mkdir(parents=True)
        (out / "spec.json").write_text(json.dumps(spec))
        environment = {
            "PATH": "/usr/bin:/bin", "HOME": str(out / "tmp"), "TMPDIR": str(out / "tmp"), "HF_HUB_OFFLINE": "1",
            "GRAFT_REGIONS": str(var / "cache" / "regions"),
        }  # fmt: skip
        told = ["--out", str(out), "--token-cache", str(rows.parent / "tokens"), "--private", str(var), "--parent-pid", str(os.getpid())]
        done = subprocess.run(
            [sys.executable, "-m", "jobs", "train", str(out / "spec.json"), *told, *(["--resume", *map(str, resume)] if resume else [])],
            cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=200,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        told_events = list(read_events(out / "events.jsonl"))
        outcomes.append([event.data["step"] for event in told_events if event.kind == "step"])
        assert [event.data["kind"] for event in told_events if event.kind == "artifact"] == ["adapter", "merged"]
        assert sorted(path.name for path in (out / "tmp").iterdir()) >= ["jobs"]
    assert outcomes == [[1, 2], []]
