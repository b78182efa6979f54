"""A run that is being filled in: its steps, what stands in the form of each, and what differs from what it was begun from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.db.models import Model
from django.http import QueryDict
from django.utils.translation import gettext_lazy as _

from webapp.accounts.models import Team
from webapp.runs.filling import Values, word
from webapp.runs.forms import RunForm
from webapp.runs.models import RunDraft

STEPS = {
    "data": _("Data"),
    "check": _("Check"),
    "model": _("Model"),
    "method": _("Method"),
    "settings": _("Settings"),
    "launch": _("Launch"),
}
# Where a field stands that has an error: by the beginning of its name, the longest that fits.
_PLACES = {
    "dataset_version": "data",
    "data_": "data",
    "base_model": "model",
    "task": "model",
    "method": "method",
    "adapters": "method",
    "settings_": "settings",
    "training_": "settings",
    "seed": "settings",
}
_LISTS = ("dataset_version", "base_model")
# What a clone is expected to have of its own.
_OWN = ("name",)


@dataclass(frozen=True)
class Step:
    """A step as the page lists it; `done`: it lies before the one that is shown."""

    name: str
    label: Any
    number: int
    current: bool
    done: bool


@dataclass(frozen=True)
class Change:
    """A field that differs from the draft's origin: `before` and `now` in words."""

    field: str
    label: str
    before: str
    now: str


def steps(current: str) -> list[Step]:
    """All steps, in order."""
    at = list(STEPS).index(current)
    return [Step(name, label, place + 1, place == at, place < at) for place, (name, label) in enumerate(STEPS.items())]


def step_of(field: str) -> str:
    """The step on which a field of the form is filled in."""
    return next((step for beginning, step in _PLACES.items() if field.startswith(beginning)), "launch")


def following(step: str) -> str:
    """The step after that one; the last is followed by itself."""
    names = list(STEPS)
    return names[min(names.index(step) + 1, len(names) - 1)]


def before(step: str) -> str:
    """The step before that one, or empty."""
    names = list(STEPS)
    return names[names.index(step) - 1] if step != names[0] else ""


def shown_form(draft: RunDraft) -> RunForm:
    """The form filled in with the draft, not checked."""
    return RunForm(draft.team, initial=draft.values)


def checked_form(team: Team, values: Mapping[str, Any]) -> RunForm:
    """The form as if a browser had sent the values: what is wrong with them is said."""
    return RunForm(team, sent(RunForm(team, initial=dict(values))))


def sent(form: RunForm) -> QueryDict:
    """What a browser sends of a form that was drawn and left as it was."""
    query = QueryDict(mutable=True)
    for name in form.fields:
        value = form[name].value()
        if name in _LISTS and not value:  # a browser chooses the first row of a list that has no empty one
            row = form.chosen(name)
            value = row and str(row.pk)
        if isinstance(value, list):
            query.setlist(name, [str(each) for each in value])
        elif value is not None and value is not False:
            query[name] = str(value)
    return query


def plain(values: Mapping[str, Any]) -> Values:
    """The values as JSON can hold them: rows by their id."""

    def one(value: Any) -> Any:
        if isinstance(value, Model):
            return str(value.pk)
        if isinstance(value, list | tuple):
            return [one(each) for each in value]
        return value if value is None or isinstance(value, bool | int | float | str) else str(value)

    return {name: one(value) for name, value in values.items()}


def changes(form: RunForm, origin: Mapping[str, Any]) -> list[Change]:
    """What differs in a form from `origin` (values by field), in the order of the form; settings of other methods are left out."""
    chosen = str(form["method"].value())
    found = []
    for name, was in origin.items():
        field = form.fields.get(name)
        if field is None or name in _OWN or (name.startswith("settings_") and not name.startswith(f"settings_{chosen}_")):
            continue
        now = form[name].value()
        if comparable(field, was) != comparable(field, now):
            found.append(Change(name, str(field.label), word(field, was), word(field, now)))
    return found


def comparable(field: forms.Field, value: Any) -> Any:
    """A value as what it means, whether typed or stored: 2e-4 is 0.0002, and an empty box of a field with a default is that default."""
    if isinstance(field, forms.BooleanField):
        return field.to_python(value)
    if isinstance(field, forms.FloatField | forms.IntegerField):
        try:
            return None if value in (None, "") else float(value)
        except (TypeError, ValueError):
            return value
    if isinstance(value, list | tuple):
        return sorted(str(each) for each in value)
    return "" if value is None else str(value)
