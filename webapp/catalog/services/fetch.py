"""Use case: download a model of the hub in a child process, check it, and offer it. The body of the task."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from jobs.errors import GraftError
from webapp.catalog.models import BaseModel
from webapp.core.box import GIBI, MEBI, Limits, run_in_box
from webapp.core.locks import alone
from webapp.settings.env import ENV

State = BaseModel.State
PROGRESS_SECONDS = 1.0
HOURS = 3600
LIMITS = Limits(memory_bytes=8 * GIBI, cpu_seconds=4 * HOURS, wall_seconds=12 * HOURS, file_bytes=1024 * GIBI, output_bytes=64 * MEBI)
# The hub's token and the way out of this network; nothing else of our environment is handed on.
_HANDED_ON = ("HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE")


def fetch(model_id: UUID) -> None:
    """Fetching -> ready or failed. Called twice, late, or for a model that is gone, it changes nothing; a download goes on where it was."""
    folder = BaseModel(pk=model_id).folder
    with alone(folder.with_suffix(".lock")) as mine:
        model = BaseModel.objects.filter(pk=model_id, state=State.FETCHING).first()
        if not mine or model is None:
            return
        # The child may write here alone, so that other models are out of its reach; what it has is kept for the next try.
        work = folder.with_suffix(".part")
        work.mkdir(mode=0o700, exist_ok=True)
        try:
            answer = _download(model, work)
        except GraftError as error:
            _close(model, state=State.FAILED, message=f"{error.message} {error.remedy}")
            return
        shutil.rmtree(folder, ignore_errors=True)
        (work / "model").rename(folder)
        shutil.rmtree(work, ignore_errors=True)
        facts = answer["model"]
        origin = {name: facts.pop(name) for name in ("name", "revision", "licence", "source")}
        _close(model, state=State.READY, message="", facts=facts, revision=origin["revision"], licence=origin["licence"])


def _download(model: BaseModel, work: Path) -> dict[str, Any]:
    arguments = ["fetch", model.repository, "--out", str(work / "model"), "--endpoint", ENV.hub_endpoint, "--json"]
    if model.revision:
        arguments += ["--revision", model.revision]
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    return run_in_box(
        arguments, writable=work, network=True, limits=LIMITS, environment=environment, on_line=_Progress(model), readable={work: "model"}
    )


class _Progress:
    """Writes the child's `phase` lines to the row, at most one a second."""

    def __init__(self, model: BaseModel) -> None:
        self._rows = BaseModel.objects.filter(pk=model.pk, state=State.FETCHING)
        self._written = 0.0

    def __call__(self, line: dict[str, Any]) -> None:
        if line.get("kind") == "phase" and time.monotonic() - self._written >= PROGRESS_SECONDS:
            self._written = time.monotonic()
            self._rows.update(progress=line["data"])


def _close(model: BaseModel, *, state: State, **fields: Any) -> None:
    BaseModel.objects.filter(pk=model.pk, state=State.FETCHING).update(state=state, **fields)
