"""Use case: bring a model's files here, from wherever they come, have them looked at in the box, and offer it. The body of the task."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import UUID

from jobs.errors import GraftError
from webapp.catalog.models import BaseModel
from webapp.catalog.services.add_from_folder import bring_folder
from webapp.catalog.services.add_from_hub import require_owner
from webapp.catalog.services.add_from_run import bring_run
from webapp.catalog.services.add_from_upload import bring_upload
from webapp.catalog.services.adding import incoming_folder, work_folder
from webapp.catalog.services.describe import fields_of, look_at
from webapp.catalog.services.progress import Gone, Progress
from webapp.core.box import GIBI, MEBI, Limits, run_in_box
from webapp.core.locks import alone
from webapp.settings.env import ENV

State, Source = BaseModel.State, BaseModel.Source
HOURS = 3600
LIMITS = Limits(memory_bytes=8 * GIBI, cpu_seconds=4 * HOURS, wall_seconds=12 * HOURS, file_bytes=1024 * GIBI, output_bytes=64 * MEBI)
# The hub's token and the way out of this network; nothing else of our environment is handed on.
_HANDED_ON = ("HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy", "SSL_CERT_FILE")


def fetch(model_id: UUID) -> None:
    """Being added -> ready or failed. Called twice, late, or for a model that is gone, it does nothing; a download goes on where it was."""
    folder = BaseModel(pk=model_id).folder
    with alone(folder.with_suffix(".lock")) as mine:
        model = BaseModel.objects.filter(pk=model_id, state=State.FETCHING).first()
        if not mine or model is None:
            return
        # The child may write here alone, so that other models are out of its reach; what it has is kept for the next try.
        work = work_folder(model)
        work.mkdir(mode=0o700, exist_ok=True)
        progress = Progress(model)
        try:
            fields = _bring(model, work, progress)
            found = look_at(work / "model", model.name)
        except Gone:
            shutil.rmtree(work, ignore_errors=True)
            return
        except GraftError as error:
            _close(model, state=State.FAILED, message=f"{error.message} {error.remedy}")
            return
        shutil.rmtree(folder, ignore_errors=True)
        (work / "model").rename(folder)
        licence = fields.pop("licence", "") or model.licence or found["licence"]
        _close(model, state=State.READY, message="", licence=licence, **fields_of(found), **fields)
        for rest in (work, incoming_folder(model)):
            shutil.rmtree(rest, ignore_errors=True)


def _bring(model: BaseModel, work: Path, progress: Progress) -> dict[str, Any]:
    """The files under `work/model`; returns columns of the model that only the place they come from knows."""
    target = work / "model"
    shutil.rmtree(target, ignore_errors=True)
    if model.source == Source.HUB:
        return _download(model, work, progress)
    {Source.FOLDER: bring_folder, Source.UPLOAD: bring_upload, Source.RUN: bring_run}[Source(model.source)](model, target, progress)
    return {}


def _download(model: BaseModel, work: Path, progress: Progress) -> dict[str, Any]:
    require_owner(model.repository)  # who may be taken from may have changed since
    arguments = ["fetch", model.repository, "--out", str(work / "model"), "--endpoint", ENV.hub_endpoint, "--json"]
    if model.revision:
        arguments += ["--revision", model.revision]
    environment = {name: os.environ[name] for name in _HANDED_ON if name in os.environ}
    answer = run_in_box(
        arguments, writable=work, network=True, limits=LIMITS, environment=environment, on_line=progress.line, readable={work: "model"}
    )
    return {name: answer["model"][name] for name in ("revision", "licence")}


def _close(model: BaseModel, *, state: str, **fields: Any) -> None:
    BaseModel.objects.filter(pk=model.pk, state=State.FETCHING).update(state=state, **fields)
