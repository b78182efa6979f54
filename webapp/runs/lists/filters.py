"""From a parsed query to SQL. Every condition is one on a column of the run, or on its id among those of a small, indexed query."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q

from webapp.accounts.models import Team, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.lists.fields import GROUPS
from webapp.runs.lists.grammar import Span, Term, Text, Value
from webapp.runs.models import Experiment, RunTag

_LOOKUPS = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte", "=": "exact"}
_COLUMNS = {"loss": "train_loss", "eval": "eval_loss", "accuracy": "accuracy", "memory": "peak_memory_bytes", "step": "last_step"}
_MIRRORED = {"lt": "gt", "lte": "gte", "gt": "lt", "gte": "lte", "exact": "exact"}


@dataclass(frozen=True)
class Asking:
    """Who asks, of which team, and when: `owner:me` and `age<7d` mean something else to everybody and every day."""

    team: Team
    user: User
    moment: datetime


def where(terms: Iterable[Term], asking: Asking) -> Q:
    """The condition on runs that a query is. Archived runs are left out unless it asks for them."""
    condition, archive = Q(), Q(archived_at=None)
    for term in terms:
        if term.field == "is" and Text("archived", exact=True) in term.values:
            archive = Q()
        met = Q(*(_one(term, value, asking) for value in term.values), _connector=Q.OR)
        condition &= ~met if term.negated else met
    return condition & archive


def _one(term: Term, value: Value, asking: Asking) -> Q:
    lookup = _LOOKUPS[term.compare]
    if isinstance(value, Text):
        return _WORDS[term.field](value, asking)
    if isinstance(value, Span):
        return _moment(lookup, value)
    if term.field == "time":
        return Q(**{f"duration__{lookup}": _period(value)})
    if term.field == "age":
        return Q(**{f"created_at__{_MIRRORED[lookup]}": _before(asking.moment, value)})
    return Q(**{f"{_COLUMNS[term.field]}__{lookup}": value})


def _moment(lookup: str, span: Span) -> Q:
    """A day is all its hours: `created>2026-11-01` begins with the day after."""
    match lookup:
        case "lt" | "gte":
            return Q(**{f"created_at__{lookup}": span.start})
        case "lte":
            return Q(created_at__lt=span.end)
        case "gt":
            return Q(created_at__gte=span.end)
    return Q(created_at__gte=span.start, created_at__lt=span.end)


# Databases keep periods in 64 bits of microseconds; a hundred years are as good as any more.
_LONGEST_SECONDS = 100 * 366 * 86_400.0


def _period(seconds: float) -> timedelta:
    return timedelta(seconds=min(max(seconds, -_LONGEST_SECONDS), _LONGEST_SECONDS))


def _before(moment: datetime, seconds: float) -> datetime:
    return moment - _period(seconds)


def _text(column: str, value: Text) -> dict[str, Any]:
    return {f"{column}__{'iexact' if value.exact else 'icontains'}": value.text}


def _status(value: Text, _asking: Asking) -> Q:
    return Q(state__in=GROUPS.get(value.text, {value.text}))


def _owner(value: Text, asking: Asking) -> Q:
    if value.text.lower() == "me" and not value.exact:
        return Q(created_by=asking.user)
    return Q(created_by__in=User.objects.filter(username__iexact=value.text).values("pk"))


def _tag(value: Text, _asking: Asking) -> Q:
    return Q(Exists(RunTag.objects.filter(run=OuterRef("pk"), name=value.text.lower())))


def _data(value: Text, asking: Asking) -> Q:
    name, at, number = value.text.rpartition("@")
    versions = DatasetVersion.objects.filter(dataset__team=asking.team)
    if at and number.isdecimal() and len(number) < 10:
        versions = versions.filter(number=int(number), **_text("dataset__name", Text(name, value.exact)))
    else:
        versions = versions.filter(**_text("dataset__name", value))
    return Q(dataset_version__in=versions.values("pk"))


def _model(value: Text, _asking: Asking) -> Q:
    return Q(base_model__in=BaseModel.objects.filter(**_text("name", value)).values("pk"))


def _experiment(value: Text, asking: Asking) -> Q:
    return Q(experiment__in=Experiment.objects.filter(team=asking.team, **_text("name", value)).values("pk"))


def _is(value: Text, _asking: Asking) -> Q:
    return Q(archived_at__isnull=False) if value.text == "archived" else Q(Exists(RunTag.objects.filter(run=OuterRef("pk"))))


def _anywhere(value: Text, asking: Asking) -> Q:
    """A bare word: a part of what the row shows. Quoted it may hold spaces, but is a part still."""
    part = Text(value.text)
    owners = User.objects.filter(username__icontains=value.text).values("pk")
    tags = RunTag.objects.filter(run=OuterRef("pk"), name__icontains=value.text)
    return (
        Q(name__icontains=value.text)
        | Q(method__icontains=value.text)
        | Q(created_by__in=owners)
        | _data(part, asking)
        | _model(part, asking)
        | Q(Exists(tags))
    )


_WORDS: dict[str, Callable[[Text, Asking], Q]] = {
    "": _anywhere,
    "status": _status,
    "method": lambda value, _asking: Q(method=value.text),
    "kind": lambda value, _asking: Q(kind=value.text),
    "owner": _owner,
    "tag": _tag,
    "data": _data,
    "model": _model,
    "experiment": _experiment,
    "is": _is,
}
