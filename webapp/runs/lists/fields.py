"""The fields of the search box: their names, and what the page says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from jobs.methods.registry import all_methods
from webapp.runs.kinds import Kind as RunKind
from webapp.runs.lists.grammar import Field, Kind, Mistake
from webapp.runs.states import ACTIVE, State

# Words for several states at once.
GROUPS: dict[str, frozenset[State]] = {"active": ACTIVE | {State.QUEUED, State.INTERRUPTED}}
_STATES = {**{state.value: state.value for state in State}, **{name: name for name in GROUPS}, "done": State.SUCCEEDED.value}
_METHODS = {name.lower(): method.id for method in all_methods() for name in (method.name, method.id)}
_IS = {"archived": "archived", "tagged": "tagged"}


@dataclass(frozen=True)
class Explained:
    """A field with an example and what it looks at, for the help."""

    field: Field
    example: str
    words: Any


_ALL = (
    Explained(Field("status", Kind.CHOICE, _STATES), "status:failed", _("the state; active: whatever has not ended; several with commas")),
    Explained(Field("method", Kind.CHOICE, _METHODS), "method:lora,qlora", _("the method, by id or name")),
    Explained(Field("owner", Kind.TEXT), "owner:me", _("who launched it, by user name")),
    Explained(Field("tag", Kind.TEXT), "tag:prod", _("a tag of the run")),
    Explained(Field("data", Kind.TEXT), "data:tickets@3", _("a part of the dataset's name, with or without the version")),
    Explained(Field("model", Kind.TEXT), "model:smol", _("a part of the base model's name")),
    Explained(Field("experiment", Kind.TEXT), 'experiment:"rank study"', _("a part of the experiment's name")),
    Explained(Field("kind", Kind.CHOICE, {kind.value: kind.value for kind in RunKind}), "kind:train", _("train, compose or analyse")),
    Explained(Field("loss", Kind.NUMBER), "loss<1.5", _("the training loss of the last step")),
    Explained(Field("eval", Kind.NUMBER), "eval<=1.2", _("the loss on held-out rows")),
    Explained(Field("accuracy", Kind.NUMBER), "accuracy>=70%", _("the accuracy of the tuned model, 0.7 or 70%")),
    Explained(Field("memory", Kind.BYTES), "memory<4GB", _("peak memory, with kB, MB, GB or GiB")),
    Explained(Field("time", Kind.SECONDS), "time>10m", _("from the first start to the end, with s, m, h or d")),
    Explained(Field("step", Kind.NUMBER), "step>100", _("the last step")),
    Explained(Field("created", Kind.DATE), "created>2026-11-01", _("the day it was launched, or a minute (2026-11-01T14:30), in UTC")),
    Explained(Field("age", Kind.SECONDS), "age<7d", _("the time since it was launched, with m, h, d or w")),
    Explained(Field("is", Kind.CHOICE, _IS), "is:archived", _("archived (hidden otherwise) or tagged")),
)
EXPLAINED: tuple[Explained, ...] = _ALL
FIELDS: Mapping[str, Field] = {each.field.name: each.field for each in _ALL} | {
    alias: next(each.field for each in _ALL if each.field.name == name)
    for alias, name in {
        "state": "status", "train_loss": "loss", "eval_loss": "eval", "dataset": "data", "base": "model", "user": "owner", "steps": "step",
    }.items()
}  # fmt: skip

_MISTAKES = {
    "unknown_field": _("There is no field “%(field)s”."),
    "unknown_value": _("“%(field)s” is never “%(value)s”."),
    "not_number": _("“%(field)s” needs a number, such as 1.5; “%(value)s” is none."),
    "not_bytes": _("“%(field)s” needs a size, such as 4GB or 500MB; “%(value)s” is none."),
    "not_seconds": _("“%(field)s” needs a time, such as 90s, 10m, 2h or 7d; “%(value)s” is none."),
    "not_date": _("“%(field)s” needs a day, such as 2026-11-01; “%(value)s” is none."),
    "missing_value": _("A value is missing here."),
    "unclosed_quote": _("The quotation mark that opens here is not closed."),
    "not_comparable": _("“%(field)s” is a word and knows no %(value)s: write %(field)s:word."),
    "one_value": _("A comparison takes one value, not several."),
}


def words_of(mistake: Mistake) -> str:
    """What a mistake is, in a sentence, with the word that was perhaps meant."""
    said = str(_MISTAKES[mistake.code]) % {"field": mistake.field, "value": mistake.value}
    if not mistake.near:
        return said
    return f"{said} " + str(_("Did you mean “%(near)s”?")) % {"near": mistake.near}


def names() -> list[str]:
    """The names of all fields, as an error lists them."""
    return [each.field.name for each in EXPLAINED]


def values_of(mistake: Mistake) -> list[str]:
    """The values that a choice takes, where one that it does not take was written and there are not too many to read."""
    choices = FIELDS[mistake.field].choices if mistake.code == "unknown_value" else None
    return sorted(choices) if choices and len(choices) <= 16 else []
