"""`manage.py demo --method lora|qlora|full` (`make demo`): a site of its own in a temporary folder, and the main job through it.

Progress goes to standard error; the last line of standard output is one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
from django.core.management.base import BaseCommand, CommandError, CommandParser

from jobs.events import read_events
from jobs.methods.registry import METHODS
from webapp.operate.demo.visitor import DemoFailed, Followed, Visitor
from webapp.operate.management.commands.prepare import ADMINISTRATOR, FIRST_TEAM, SAMPLE_FILES
from webapp.settings.env import ENV, PROJECT

HOST = "127.0.0.1"
READY_SECONDS = 120.0
RUN_SECONDS = 330.0
STOP_SECONDS = 15.0
LEAST_GAIN = 0.3
# What the form is filled in with, by method: few steps at a high rate, to end soon on a CPU.
TRAINING: dict[str, dict[str, str]] = {
    "lora": {"training_epochs": "1", "training_learning_rate": "0.0005"},
    "qlora": {"training_epochs": "1", "training_learning_rate": "0.0005"},
    "full": {"training_epochs": "1", "training_learning_rate": "0.0001"},
}


class Command(BaseCommand):
    """The demonstration; exit 0 only where all is well."""

    help = "Run the main job without a browser: upload, launch, follow, download."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        """The method."""
        parser.add_argument("--method", choices=list(METHODS), default="lora")

    def handle(self, *args: Any, **options: Any) -> None:
        """Prints the result. Raises `CommandError` (exit 1) where a promise was broken, after the result where there is one."""
        began = time.monotonic()
        # One line for each request would hide the progress.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        password = secrets.token_urlsafe(12)
        try:
            with own_site(password) as (var, port):
                body = main_job(options["method"], var, Visitor(HOST, port, self._say), password)
        except (DemoFailed, httpx.HTTPError, OSError, LookupError) as failure:
            raise CommandError(f"the demonstration failed: {failure}") from failure
        body["seconds"] = round(time.monotonic() - began, 1)
        self.stdout.write(json.dumps(body))
        if faults := shortcomings(body):
            raise CommandError("the demonstration failed: " + "; ".join(faults))

    def _say(self, line: str) -> None:
        self.stderr.write(f"demo       | {line}")


@contextmanager
def own_site(password: str) -> Iterator[tuple[Path, int]]:
    """A site in a temporary folder, on a free port; its output goes to our standard error. Gives its folder and port."""
    var = Path(tempfile.mkdtemp(prefix="graft-demo-"))
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port = probe.getsockname()[1]
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL", "GRAFT_SECRET_KEY")}
    environment |= {
        "GRAFT_VAR": str(var),
        "GRAFT_HOST": HOST,
        "GRAFT_PORT": str(port),
        "GRAFT_FIRST_RUN": "0",
        "GRAFT_ADMIN_PASSWORD": password,
        "GRAFT_SAMPLE_MODEL": str(ENV.sample_model),
    }
    site = subprocess.Popen([sys.executable, "manage.py", "up"], cwd=PROJECT, env=environment, stdout=sys.stderr, start_new_session=True)
    try:
        _wait_until_ready(site, port)
        yield var, port
    finally:
        site.send_signal(signal.SIGTERM)
        try:
            site.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            site.kill()
            site.wait()
        shutil.rmtree(var, ignore_errors=True)


def _wait_until_ready(site: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if site.poll() is not None:
            raise DemoFailed(f"the site ended with {site.returncode}")
        try:
            if httpx.get(f"http://{HOST}:{port}/readyz", timeout=5).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise DemoFailed("the site did not become ready")


def main_job(method: str, var: Path, visitor: Visitor, password: str) -> dict[str, Any]:
    """Sign in, upload, launch, follow, download; gives what is printed, less the seconds."""
    team = FIRST_TEAM.lower()
    visitor.sign_in(ADMINISTRATOR, password)
    version = visitor.make_dataset(team, "Demo tickets", SAMPLE_FILES)
    run_id = visitor.launch(team, version, {"name": f"demo {method}", "method": method, **TRAINING[method]})
    followed = visitor.follow(run_id, RUN_SECONDS)
    if followed.run["state"] != "succeeded":
        raise DemoFailed(f"the run {followed.run['state']}: {followed.run['message']} {followed.run['remedy']}")
    artifacts = downloaded(visitor, run_id, followed)
    differences = [artifact["details"].get("merge_max_difference") for artifact in followed.of_kind("artifact")]
    return {
        "method": method,
        **delivery(followed, var / "runs" / run_id),
        "base_accuracy": accuracy(followed, "base"),
        "tuned_accuracy": accuracy(followed, "tuned"),
        "artifacts": artifacts,
        "merge_max_difference": max((value for value in differences if value is not None), default=None),
    }


def delivery(followed: Followed, folder: Path) -> dict[str, int]:
    """What came over the socket against the record, the event files of all attempts."""
    record = [
        (int(attempt.name.partition("-")[2]), event.seq, event.kind)
        for attempt in sorted(folder.glob("attempt-*"))
        for event in read_events(attempt / "events.jsonl")
    ]
    received = followed.ids
    return {
        "points_received": len(followed.of_kind("step")),
        "points_lost": len({(attempt, seq) for attempt, seq, _ in record} - set(received)),
        "points_duplicate": len(received) - len(set(received)),
        "points_disordered": sum(later < earlier for earlier, later in pairwise(received)),
        "connections": followed.connections,
    }


def accuracy(followed: Followed, model: str) -> float | None:
    """The share of held-out rows that a model answered right."""
    for data in followed.of_kind("eval"):
        if data["split"] == "test" and data["model"] == model:
            return data["label_accuracy"] if data.get("label_accuracy") is not None else data.get("exact_match")
    return None


def downloaded(visitor: Visitor, run_id: str, followed: Followed) -> list[dict[str, Any]]:
    """Every artifact of the page, downloaded in parts and compared with what the engine said it had written."""
    written = {data["sha256"]: data for data in followed.of_kind("artifact")}
    found = []
    for link in visitor.artifact_links(run_id):
        size, sha256 = visitor.download(link)
        data = written.pop(sha256, None)
        if data is None or data["bytes"] != size:
            raise DemoFailed(f"{link}: {size} bytes with SHA-256 {sha256} are no artifact of the run")
        found.append({"name": data["name"], "bytes": size, "sha256": sha256})
    if written or not found:
        raise DemoFailed(f"the page has no link for {', '.join(data['name'] for data in written.values()) or 'any artifact'}")
    return found


def shortcomings(body: dict[str, Any]) -> list[str]:
    """The promises that a result breaks, in words."""
    faults = [f"{body[name]} {name.replace('_', ' ')}" for name in ("points_lost", "points_duplicate", "points_disordered") if body[name]]
    base, tuned = body["base_accuracy"], body["tuned_accuracy"]
    if base is None or tuned is None or tuned - base < LEAST_GAIN:
        faults.append(f"accuracy went from {base} to {tuned}, not up by {LEAST_GAIN}")
    return faults
