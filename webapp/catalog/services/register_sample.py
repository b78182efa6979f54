"""Use case: offer a model folder of this host to every team of the site."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from jobs.errors import UserError
from webapp.catalog.models import BaseModel
from webapp.catalog.services.describe import fields_of, look_at

State = BaseModel.State


def register_sample(folder: Path) -> BaseModel:
    """The model of `folder` (which `python -m jobs sample` made, with its `graft.json`), offered to all; done twice it is one row.

    The files are linked where both lie on one disk, else copied. Raises `UserError`: `model_missing`, `model_unusable`.
    """
    card_file = folder / "graft.json"
    if not card_file.is_file():
        raise UserError("model_missing", path=folder)
    card = json.loads(card_file.read_text(encoding="utf-8"))
    known = BaseModel.objects.filter(team=None, source=BaseModel.Source.SAMPLE, name=card["name"], revision=card["revision"])
    model = known.first() or BaseModel(name=card["name"], source=BaseModel.Source.SAMPLE, revision=card["revision"])
    if model.state == State.READY and model.folder.is_dir():
        return model
    fields = fields_of(look_at(folder, card["name"]))
    if not model.folder.is_dir():
        _link(folder, model.folder)
    model.state, model.licence = State.READY, card.get("licence", "")
    for name, value in fields.items():
        setattr(model, name, value)
    model.save()
    return model


def _link(source: Path, target: Path) -> None:
    """All at once: a folder that is half there is never seen under its name."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(source, partial, copy_function=_link_file)
    os.rename(partial, target)


def _link_file(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:
        shutil.copy2(source, target)
    return target
