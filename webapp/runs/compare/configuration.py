"""What runs were launched with, side by side, and where they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs.errors import UserError
from jobs.methods.registry import METHODS, get_method
from webapp.core import formats
from webapp.runs.compare.results import learning_rate, method_name
from webapp.runs.models import Run
from webapp.runs.words import FIELDS

SECTIONS = {
    "general": gettext_lazy("Model, data and method"),
    "settings": gettext_lazy("Settings of the methods"),
    "training": gettext_lazy("Training"),
    "evaluation": gettext_lazy("Evaluation"),
    "export": gettext_lazy("Export"),
    "engine": gettext_lazy("Engine"),
    "other": gettext_lazy("Other"),
}
# Names and places, and what is told in words of its own.
_UNTOLD = frozenset({"version", "name", "task", "method.id", "data.train", "data.validation", "data.test"})
_UNTOLD_BELOW = ("model.", "data.mapping.")


@dataclass(frozen=True)
class Line:
    """One thing that was chosen: its name and, run by run, its value in words (`–` where the run has no such thing)."""

    path: str
    label: str
    values: Sequence[str]
    differs: bool


@dataclass(frozen=True)
class Section:
    """Lines that belong together."""

    label: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Configuration:
    """The sections that are shown, and of how many lines how many differ."""

    sections: Sequence[Section]
    differing: int
    total: int


def configuration(runs: Sequence[Run], *, everything: bool = False) -> Configuration:
    """The lines in which the runs differ, or `everything`; none of a single run differ."""
    told = [_told(run) for run in runs]
    paths = list(dict.fromkeys(path for each in told for path in each))
    lines = {path: _line(path, told) for path in paths}
    shown = [line for line in lines.values() if everything or line.differs]
    sections = [Section(str(label), [line for line in shown if _section(line.path) == name]) for name, label in SECTIONS.items()]
    return Configuration([section for section in sections if section.lines], sum(line.differs for line in lines.values()), len(lines))


def _told(run: Run) -> dict[str, str]:
    """Path and value in words of everything that was chosen for a run."""
    spec = run.spec
    said = {
        "general.base": run.base_model.name,
        "general.revision": run.base_model.revision or formats.NONE,
        "general.data": str(run.dataset_version),
        "general.task": str(spec.get("task", "causal_lm")),
        "general.method": method_name(run),
    }
    for path, value in flatten(spec).items():
        if path not in _UNTOLD and not path.startswith(_UNTOLD_BELOW):
            said[path] = _words(path, value)
    if "training.learning_rate" in said and spec["training"]["learning_rate"] is None:
        said["training.learning_rate"] = _("%(rate)s, the method's own") % {"rate": formats.format_rate(learning_rate(run))}
    return said


def flatten(body: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The leaves of an object by their dotted path; a list is a leaf, an empty object is nothing."""
    found: dict[str, Any] = {}
    for name, value in body.items():
        path = f"{above}{name}"
        if isinstance(value, Mapping):
            found |= flatten(value, f"{path}.")
        else:
            found[path] = value
    return found


def _line(path: str, told: Sequence[Mapping[str, str]]) -> Line:
    values = [each.get(path, formats.NONE) for each in told]
    return Line(path, _label(path), values, differs=len(set(values)) > 1)


def _section(path: str) -> str:
    if path.startswith("method."):
        return "settings"
    top = path.partition(".")[0]
    if top in ("data", "seed"):
        return "training"
    return top if top in SECTIONS else "other"


_GENERAL = {
    "base": gettext_lazy("Base model"),
    "revision": gettext_lazy("Revision of the base model"),
    "data": gettext_lazy("Dataset version"),
    "task": gettext_lazy("Task"),
    "method": gettext_lazy("Method"),
}


def _label(path: str) -> str:
    """The name that the form of a new run gives it; the path itself where the form has no such field."""
    top, _dot, name = path.partition(".")
    if top == "general":
        return str(_GENERAL[name])
    if path.startswith("method.settings."):
        return _setting(path.removeprefix("method.settings."))
    found = next((field.label for field in FIELDS if field.path == path), None)
    return path if found is None else str(found)


def _setting(name: str) -> str:
    """What the first method of the catalogue that has such a setting calls it."""
    for method in METHODS:
        for setting in get_method(method).settings:
            if setting.name == name:
                return setting.label
    return name


def _words(path: str, value: Any) -> str:
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if value in (None, "", [], {}):
        return _("by default")
    choices = next((field.choices for field in FIELDS if field.path == path), {})
    if isinstance(value, str):
        return str(choices.get(value, value))
    if isinstance(value, float):
        return formats.format_rate(value)
    if isinstance(value, int):
        return formats.format_number(value)
    return json.dumps(value, ensure_ascii=False)


def settings_of(run: Run) -> dict[str, Any]:
    """The settings of a run's method that are not their defaults of today."""
    given: dict[str, Any] = (run.spec.get("method") or {}).get("settings") or {}
    try:
        defaults = {setting.name: setting.default for setting in get_method(run.method).settings}
    except UserError:
        return dict(given)
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}
