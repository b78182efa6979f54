"""The base models' part in the deletion of a team."""

from __future__ import annotations

from pathlib import Path

from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.catalog.services.adding import incoming_folder, work_folder


def delete_of_team(team: Team) -> list[Path]:
    """Deletes the team's own base models, whose runs are gone, and names their folders."""
    models = BaseModel.objects.filter(team=team)
    folders = [folder for model in models for folder in (model.folder, work_folder(model), incoming_folder(model))]
    models.delete()
    return folders
