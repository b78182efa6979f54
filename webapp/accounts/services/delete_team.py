"""Use case: delete a team with all that belongs to it."""

from __future__ import annotations

import pkgutil
import shutil
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from django.conf import settings
from django.db import transaction

from webapp.accounts.access import require
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record

# Deletes the rows of one app that belong to the team and names their files; raises `UserError` where that cannot be now.
Deleter = Callable[[Team], Iterable[Path]]


@transaction.atomic
def delete_team(*, team: Team, actor: User) -> None:
    """Deletes the team, its runs, data and models: rows first, files after commit. The apps above bring their parts
    (`settings.GRAFT_TEAM_DELETERS`).

    Raises `UserError("team_busy")` while a run has not ended, `PermissionDenied` for anybody but an owner.
    """
    require(actor, team, "own")
    team = Team.objects.select_for_update().get(pk=team.pk)
    for name in settings.GRAFT_TEAM_DELETERS:
        deleter: Deleter = pkgutil.resolve_name(name)
        for path in deleter(team):
            transaction.on_commit(partial(_remove, path))
    detail = {"slug": team.slug, "members": list(team.memberships.order_by("user__username").values_list("user__username", flat=True))}
    record(Action.TEAM_DELETED, team=None, actor=actor, thing=team, detail=detail)
    team.delete()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
