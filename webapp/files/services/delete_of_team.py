"""The files' part in the deletion of a team. The datasets' part, which comes after, takes the bytes."""

from __future__ import annotations

from pathlib import Path

from webapp.accounts.models import Team
from webapp.files.models import File, Part, PartedUpload


def delete_of_team(team: Team) -> list[Path]:
    """Deletes the team's files and uploads, and names the files of parts."""
    paths = [part.path for part in Part.objects.filter(upload__team=team)]
    PartedUpload.objects.filter(team=team).delete()
    File.objects.filter(team=team).delete()
    return paths
