"""Put words on runs, and take them off again."""

from __future__ import annotations

import re
from collections.abc import Collection
from uuid import UUID

from django.db import transaction
from django.db.models import QuerySet

from jobs.errors import UserError
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team
from webapp.accounts.services.audit import record_each
from webapp.runs.models import Run, RunTag

# One that needs no quotation marks in the search box: no space, comma, colon or comparison in it.
_TAG = re.compile(r"\w[\w.+/-]{0,39}")


def tag_names(text: str) -> list[str]:
    """The tags that `text` names, separated by commas or spaces, in small letters. Raises `UserError("tag_name")` for none and for what
    is no tag.
    """
    names = sorted({name.lower() for name in re.split(r"[\s,]+", text) if name})
    wrong = [name for name in names if not _TAG.fullmatch(name)]
    if wrong or not names:
        raise UserError("tag_name", name=", ".join(wrong), where={"field": "tag"})
    return names


def tag(runs: QuerySet[Run], names: Collection[str], *, team: Team, actor: str) -> list[UUID]:
    """Puts the tags on the team's runs; gives those that lacked one of them."""
    with transaction.atomic():
        ids = set(runs.values_list("pk", flat=True))
        there = set(RunTag.objects.filter(run__in=ids, name__in=names).values_list("run_id", "name"))
        missing = [(pk, name) for pk in ids for name in names if (pk, name) not in there]
        RunTag.objects.bulk_create((RunTag(run_id=pk, name=name) for pk, name in missing), ignore_conflicts=True)
        lacked = sorted({pk for pk, _name in missing})
        _write_down(Action.RUN_TAGGED, lacked, names, team, actor)
    return lacked


def untag(runs: QuerySet[Run], names: Collection[str], *, team: Team, actor: str) -> list[UUID]:
    """Takes the tags off the team's runs; gives those that had one of them."""
    with transaction.atomic():
        rows = RunTag.objects.filter(run__in=runs.values("pk"), name__in=names)
        had = sorted(set(rows.values_list("run_id", flat=True)))
        rows.delete()
        _write_down(Action.RUN_UNTAGGED, had, names, team, actor)
    return had


def _write_down(action: Action, ids: Collection[UUID], names: Collection[str], team: Team, actor: str) -> None:
    runs = Run.objects.filter(pk__in=ids).only("pk", "name")
    record_each(action, team=team, actor=actor, things=[(run, run.name) for run in runs], detail={"tags": list(names)})
