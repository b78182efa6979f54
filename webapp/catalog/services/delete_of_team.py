"""The base models' part in the deletion of a team."""

from __future__ import annotations

from pathlib import Path

from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel


def delete_of_team(team: Team) -> list[Path]:
    """Deletes the team's own base models, whose runs are gone, and names their folders."""
    models = BaseModel.objects.filter(team=team)
    folders = [model.folder for model in models]
    models.delete()
    return folders
