"""What is done to the ticked runs of the list: each action, who may ask for it, and what is said and can be undone afterwards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db.models import QuerySet
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from jobs.errors import UserError
from webapp.accounts.models import Team
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services import archive as archiving
from webapp.runs.services import tags as tagging
from webapp.runs.services.cancel import cancel


@dataclass(frozen=True)
class Asked:
    """The ticked runs (of this team alone), who asks, and the tags that were typed."""

    team: Team
    runs: QuerySet[Run]
    actor: str
    tag: str = ""


@dataclass(frozen=True)
class Done:
    """What has come of it: where to go instead of back to the list, what to say, and the fields that undo it."""

    words: str = ""
    go: str = ""
    undo: dict[str, Any] = field(default_factory=dict)


def _compare(asked: Asked) -> Done:
    return Done(go=f"{reverse('runs:compare', args=[asked.team.slug])}?{urlencode([('run', pk) for pk in _ids(asked)])}")


def _clone(asked: Asked) -> Done:
    runs = list(asked.runs)
    if len(runs) != 1:
        return Done(_("Clone takes one run: tick one alone."))
    to = {Kind.TRAIN: "runs:new", Kind.COMPOSE: "runs:combine"}.get(Kind(runs[0].kind))
    if to is None:
        return Done(_("An analysis is not cloned: launch it anew from the form."))
    return Done(go=f"{reverse(to, args=[asked.team.slug])}?clone={runs[0].pk}")


def _tag(asked: Asked) -> Done:
    names = tagging.tag_names(asked.tag)
    changed = tagging.tag(asked.runs, names, team=asked.team, actor=asked.actor)
    return Done(_tagged(changed, names, taken_off=False), undo=_undo_tags("untag", changed, names))


def _untag(asked: Asked) -> Done:
    names = tagging.tag_names(asked.tag)
    changed = tagging.untag(asked.runs, names, team=asked.team, actor=asked.actor)
    return Done(_tagged(changed, names, taken_off=True), undo=_undo_tags("tag", changed, names))


def _archive(asked: Asked) -> Done:
    ticked = len(_ids(asked))
    changed = archiving.archive(asked.runs, team=asked.team, actor=asked.actor)
    words = ngettext("%(count)d run was archived.", "%(count)d runs were archived.", len(changed)) % {"count": len(changed)}
    if len(changed) < ticked:
        words += " " + _("What runs or waits, and what was archived before, stays as it is.")
    return Done(words, undo=_undo("unarchive", changed))


def _unarchive(asked: Asked) -> Done:
    changed = archiving.unarchive(asked.runs, team=asked.team, actor=asked.actor)
    words = ngettext("%(count)d run is back in the list.", "%(count)d runs are back in the list.", len(changed))
    return Done(words % {"count": len(changed)}, undo=_undo("archive", changed))


def _stop(asked: Asked) -> Done:
    stopped = 0
    for run in asked.runs:
        try:
            cancel(run, actor=asked.actor)
            stopped += 1
        except UserError:
            # It has ended in the meantime, which is what was asked for.
            continue
    words = ngettext(
        "%(count)d run stops. Retry on its page goes on from its last checkpoint.",
        "%(count)d runs stop. Retry on their pages goes on from their last checkpoints.",
        stopped,
    )
    return Done(words % {"count": stopped} if stopped else _("Nothing was stopped: those runs have ended."))


# What each asks of the person's role (`accounts.access.ACTIONS`), and what it does.
BULK: dict[str, tuple[str, Callable[[Asked], Done]]] = {
    "compare": ("view", _compare),
    "clone": ("launch", _clone),
    "tag": ("control", _tag),
    "untag": ("control", _untag),
    "archive": ("control", _archive),
    "unarchive": ("control", _unarchive),
    "stop": ("control", _stop),
}


def _ids(asked: Asked) -> list[UUID]:
    return list(asked.runs.values_list("pk", flat=True))


def _undo(do: str, runs: Sequence[UUID], tag: str = "") -> dict[str, Any]:
    return {"do": do, "run": [str(pk) for pk in runs], "tag": tag} if runs else {}


def _undo_tags(do: str, runs: Sequence[UUID], names: Sequence[str]) -> dict[str, Any]:
    """Of several tags a run may have had one before: undoing would take, or give, what it should not."""
    return _undo(do, runs, tag=names[0]) if len(names) == 1 else {}


def _tagged(changed: Sequence[UUID], names: Sequence[str], *, taken_off: bool) -> str:
    said = {"tags": ", ".join(names), "count": len(changed)}
    if taken_off:
        return ngettext("%(tags)s was taken off %(count)d run.", "%(tags)s was taken off %(count)d runs.", len(changed)) % said
    return ngettext("%(count)d run is now tagged %(tags)s.", "%(count)d runs are now tagged %(tags)s.", len(changed)) % said
