"""The runs' part in the deletion of a team."""

from __future__ import annotations

from pathlib import Path

from jobs.errors import UserError
from webapp.accounts.models import Team
from webapp.runs.models import Run
from webapp.runs.states import TERMINAL


def delete_of_team(team: Team) -> list[Path]:
    """Deletes the team's runs and names their folders. Raises `UserError("team_busy")` while one has not ended."""
    runs = Run.objects.filter(team=team)
    busy = runs.exclude(state__in=TERMINAL).count()
    if busy:
        raise UserError("team_busy", count=busy)
    folders = [run.folder for run in runs.only("id")]
    runs.delete()
    return folders
