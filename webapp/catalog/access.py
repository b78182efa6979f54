"""The only door to base models: those of the person's teams and those of the site."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404

from webapp.accounts.access import Person, require, teams_of, visible_to
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel


def get_base_model(user: Person, model_id: UUID, action: str = "view") -> BaseModel:
    """The model, if the person may do `action` with it. A model of the site may be viewed by every member of any team, and no more.

    Raises `Http404` for a stranger, `PermissionDenied` for a lesser role.
    """
    model = visible_to(user, BaseModel.objects.select_related("team", "created_by"), shared=True).filter(pk=model_id).first()
    if model is None or (model.team is None and not (action == "view" and teams_of(user).exists())):
        raise Http404
    if model.team is not None:
        require(user, model.team, action)
    return model


def models_of(user: Person, team: Team) -> list[BaseModel]:
    """The models that a team can start from, its own first; those in the archive are left out."""
    return _own_first(visible_to(user, BaseModel.objects.filter(archived_at=None), shared=True), team)


def archived_models_of(user: Person, team: Team) -> list[BaseModel]:
    """The models that a team has put into the archive."""
    return _own_first(visible_to(user, BaseModel.objects.exclude(archived_at=None)), team)


def _own_first(visible: QuerySet[BaseModel], team: Team) -> list[BaseModel]:
    rows = visible.select_related("created_by").defer("description", "origin").order_by("-created_at")
    return sorted((model for model in rows if model.team_id in (None, team.pk)), key=lambda model: model.team_id is None)
