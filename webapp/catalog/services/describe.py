"""Use case: have a model looked at in the box, for its page and for the forms; and anew where an older edition of Graft did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

from jobs.errors import GraftError, UserError
from webapp.catalog.models import BaseModel
from webapp.core.box import GIBI, MEBI, BoxRefusal, Limits, run_in_box
from webapp.core.locks import alone

TASK = "catalog.describe"
# Raised whenever `jobs describe` tells more: the models that were described before are then described anew (`reconcile`).
EDITION = 1
State = BaseModel.State
LIMITS = Limits(memory_bytes=4 * GIBI, cpu_seconds=30, wall_seconds=60)
# A template is a program of at most 64 kB: an honest one takes milliseconds, beside a second for the libraries.
CHAT_LIMITS = replace(LIMITS, memory_bytes=GIBI, cpu_seconds=5, wall_seconds=20, output_bytes=MEBI)


def look_at(folder: Path, name: str) -> dict[str, Any]:
    """`facts layers tokenizer needs licence chat` of the model in `folder`. Raises `UserError`: what the box says."""
    found = _boxed(["describe", str(folder), "--json"], folder, name, LIMITS, "its files could not be read within bounds")
    chat = chat_of(folder, name) if found["facts"]["chat_template"] else None
    return {**{key: value for key, value in found.items() if key != "box"}, "chat": chat}


def chat_of(folder: Path, name: str) -> Any:
    """What the chat template of the model in `folder` makes of a short conversation. Raises `UserError`: what the box says."""
    bounds = "its chat template does not end within bounds"
    return _boxed(["describe", str(folder), "--chat", "--json"], folder, name, CHAT_LIMITS, bounds)["chat"]


def _boxed(arguments: list[str], folder: Path, name: str, limits: Limits, bounds: str) -> dict[str, Any]:
    try:
        return run_in_box(arguments, readable={folder: name}, limits=limits)
    except BoxRefusal as refused:
        if refused.code.startswith("box_"):
            raise UserError("model_unusable", reason=f"{bounds} ({refused.message.rstrip('.')})") from None
        raise


def fields_of(found: dict[str, Any]) -> dict[str, Any]:
    """The columns of a model that what was found fills."""
    return {
        "facts": found["facts"],
        "description": {name: found[name] for name in ("layers", "tokenizer", "needs", "chat")},
        "described": EDITION,
    }


def describe_again(model_id: UUID) -> None:
    """The body of the task: a ready model of an older edition is described anew. Where that fails it stays ready, and its page says why."""
    folder = BaseModel(pk=model_id).folder
    with alone(folder.with_suffix(".lock")) as mine:
        rows = BaseModel.objects.filter(pk=model_id, state=State.READY, described__lt=EDITION)
        model = rows.first()
        if not mine or model is None:
            return
        try:
            found = look_at(folder, model.name)
        except GraftError as error:
            rows.update(description={"problem": f"{error.message} {error.remedy}"}, described=EDITION)
            return
        rows.update(**fields_of(found), **({} if model.licence else {"licence": found["licence"]}))
