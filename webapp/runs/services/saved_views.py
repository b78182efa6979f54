"""Keep a list of runs by name, for oneself or for the team, and let it go again."""

from __future__ import annotations

from uuid import UUID

from django.db import transaction

from jobs.errors import UserError
from webapp.accounts.access import can
from webapp.accounts.models import Team, User
from webapp.runs.models import SavedView

NAME_LENGTH = 60
# For one person in one team: the views stand in a row above the list.
MOST = 20


def save_view(*, team: Team, user: User, name: str, state: str, shared: bool) -> SavedView:
    """Keeps the list with this `state` (`lists.state.ListState.saved`); a view of the person with this name is replaced.

    Only who may launch runs can have it `shared`; a viewer's is their own.

    Raises `UserError("view_name")` and `UserError("view_limit")`.
    """
    name, shared = " ".join(name.split()), shared and can(user, team, "launch")
    if not name or len(name) > NAME_LENGTH:
        raise UserError("view_name", limit=NAME_LENGTH, where={"field": "name"})
    with transaction.atomic():
        mine = SavedView.objects.filter(team=team, user=user)
        if mine.exclude(name=name).count() >= MOST:
            raise UserError("view_limit", limit=MOST, where={"field": "name"})
        view, _made = SavedView.objects.update_or_create(team=team, user=user, name=name, defaults={"state": state, "shared": shared})
    return view


def deletable(view: SavedView, user: User) -> bool:
    """Whether the person may let it go: their own, and who manages the team any that is shared."""
    return view.user_id == user.pk or (view.shared and can(user, view.team, "manage"))


def delete_view(*, team: Team, user: User, view_id: UUID) -> SavedView | None:
    """Lets a view go, and gives it as it was; None where there is none that the person may let go."""
    view = SavedView.objects.select_related("team").filter(team=team, pk=view_id).first()
    if view is None or not deletable(view, user):
        return None
    SavedView.objects.filter(pk=view_id).delete()
    return view
