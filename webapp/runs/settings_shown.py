"""The configuration of a run for its page: every setting by name, with what differs from its default marked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from django.utils.translation import gettext as _

from jobs.methods.registry import METHODS, get_method
from jobs.spec import DataSpec, EngineSpec, EvaluationSpec, ExportSpec, TrainingSpec
from webapp.core import formats
from webapp.runs.kinds import COMMANDS, Kind
from webapp.runs.models import Run
from webapp.runs.words import FIELDS

_SECTIONS: dict[str, Any] = {
    "training": TrainingSpec,
    "evaluation": EvaluationSpec,
    "export": ExportSpec,
    "data": DataSpec,
    "engine": EngineSpec,
}
_PATHS = ("train", "validation", "test")


@dataclass(frozen=True)
class Shown:
    """One setting: its name in the spec, its label where the form has one, value and default as words, and whether they differ."""

    path: str
    label: str
    value: str
    default: str
    differs: bool


def configuration(run: Run) -> dict[str, Any]:
    """The settings of a training, those that differ from their defaults first; the spec as JSON; the command that runs it elsewhere."""
    shown = list(_shown(run)) if run.kind == Kind.TRAIN else []
    return {
        "settings": sorted(shown, key=lambda each: not each.differs),
        "differing": sum(each.differs for each in shown),
        "spec_json": json.dumps(run.spec, indent=2, ensure_ascii=False),
        "command": f"python -m jobs {COMMANDS[Kind(run.kind)]} spec.json --out OUT",
    }


def _shown(run: Run) -> Iterator[Shown]:
    labels = {words.path: str(words.label) for words in FIELDS}
    method = get_method(run.method) if run.method in METHODS else None
    given = run.spec["method"]["settings"]
    for setting in method.settings if method else ():
        yield _of(f"method.{setting.name}", setting.label, given.get(setting.name, setting.default), setting.default)
    for section, kind in _SECTIONS.items():
        for field in fields(kind):
            name = field.name
            if (section == "data" and name in _PATHS) or name not in run.spec.get(section, {}):
                continue
            path = f"{section}.{name}"
            yield _of(path, labels.get(path, ""), run.spec[section][name], field.default)
    yield _of("seed", _("Seed"), run.spec["seed"], 0)


def _of(path: str, label: str, value: Any, default: Any) -> Shown:
    return Shown(path, label, _word(value), _word(default), value != default)


def _word(value: Any) -> str:
    if value is None or value == "":
        return _("by default")
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if isinstance(value, float):
        return formats.format_rate(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
