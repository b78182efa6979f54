"""Filling the form of a new run from outside: with what a link names, with what was typed before, with the method of another spec.

What is filled in is shown and can be changed; it is checked when the run is launched, like anything that was typed.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext as _

from jobs.methods.registry import get_method
from jobs.spec import RunSpec
from webapp.runs.fields import setting_name
from webapp.runs.forms import RunForm
from webapp.runs.words import FIELDS

Values = dict[str, Any]


def fill(form: RunForm, query: QueryDict) -> None:
    """Puts the fields that a query names into a form that is not bound yet; other names are left alone."""
    for name in query:
        field = form.fields.get(name)
        if isinstance(field, forms.BooleanField):
            form.initial[name] = field.to_python(query[name])
        elif isinstance(field, forms.ModelMultipleChoiceField):
            form.initial[name] = query.getlist(name)
        elif field is not None:
            form.initial[name] = query[name]


def typed(form: RunForm) -> Values:
    """What was typed into a bound form, field by field, right or wrong."""
    return {name: field.widget.value_from_datadict(form.data, form.files, form.add_prefix(name)) for name, field in form.fields.items()}


def changes(current: RunSpec, wanted: RunSpec) -> Values:
    """The form's values that make method and training of one spec those of another. All settings of another method are among them."""
    before = _values(current) if current.method.id == wanted.method.id else _training(current)
    return {name: value for name, value in _values(wanted).items() if name not in before or before[name] != value}


def to_query(values: Values) -> str:
    """As the query of a link, or the value of a button, that `fill` reads."""
    query = QueryDict(mutable=True)
    for name, value in values.items():
        query[name] = "" if value is None else str(value)
    return query.urlencode()


def shown(form: RunForm, values: Values) -> list[tuple[str, str]]:
    """Name and value of each field in words, less the method itself and what is left at a default by being empty."""
    return [(str(form.fields[name].label), word(form.fields[name], value)) for name, value in values.items() if name != "method"]


def word(field: forms.Field, value: Any) -> str:
    """A value of a field as people read it."""
    if isinstance(value, bool):
        return _("yes") if value else _("no")
    if value in (None, ""):
        return _("by default")
    if isinstance(field, forms.ModelChoiceField):
        chosen = field.queryset.filter(pk__in=value if isinstance(value, list) else [value]) if field.queryset is not None else ()
        return ", ".join(map(str, chosen))
    if isinstance(field, forms.ChoiceField):
        return str(dict(field.choices).get(value, value))  # type: ignore[arg-type]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _values(spec: RunSpec) -> Values:
    """Method, all its settings, and the training."""
    method = get_method(spec.method.id)
    given = spec.method.settings
    settings = {setting_name(method, setting): given.get(setting.name, setting.default) for setting in method.settings}
    return {"method": method.id, **settings, **_training(spec)}


def _training(spec: RunSpec) -> Values:
    body = spec.to_json()["training"]
    fields = (words.path.rpartition(".") for words in FIELDS)
    return {f"{group}_{name}": body[name] for group, _dot, name in fields if group == "training"}
