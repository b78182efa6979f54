"""Launch an analysis: the base and the rows of a run, looked at before it is launched."""

from __future__ import annotations

from dataclasses import replace

from django.utils.translation import gettext as _

from webapp.accounts.models import Team, User
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.create import NAME_LENGTH, create_run
from webapp.runs.services.specs import Recipe


def create_analysis(recipe: Recipe, *, team: Team, user: User) -> Run:
    """Queues the analysis of a run that `services.create.create_run` would take. Raises `UserError` as it does."""
    suffix = _(", rank and bits")
    name = f"{recipe.name.strip()[: NAME_LENGTH - len(suffix)]}{suffix}"
    return create_run(replace(recipe, name=name), team=team, user=user, kind=Kind.ANALYSE)
