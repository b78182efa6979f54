"""Launch an analysis: the base and the rows of a run, looked at before it is launched."""

from __future__ import annotations

from typing import Any

from django.utils.translation import gettext as _

from webapp.accounts.models import Team, User
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.services.create import NAME_LENGTH, create_run


def create_analysis(*, team: Team, user: User, name: str, **parameters: Any) -> Run:
    """Queues the analysis of a run that `services.create.create_run` would take with the same parameters. Raises `UserError` as it does."""
    suffix = _(", rank and bits")
    return create_run(team=team, user=user, kind=Kind.ANALYSE, name=f"{name.strip()[: NAME_LENGTH - len(suffix)]}{suffix}", **parameters)
