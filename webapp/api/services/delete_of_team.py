"""The API's part in the deletion of a team: its jobs go before the files and runs that they name."""

from __future__ import annotations

from pathlib import Path

from webapp.accounts.models import Team
from webapp.api.models import Job


def delete_of_team(team: Team) -> list[Path]:
    """Deletes the team's jobs; they have no files of their own."""
    Job.objects.filter(team=team).delete()
    return []
