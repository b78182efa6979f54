"""Use cases of a team's presets: kept under a name, forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from webapp.accounts.models import Team, User
from webapp.runs.models import RunPreset

NAME_LENGTH = 60


def keep(team: Team, user: User, name: str, values: Mapping[str, Any]) -> RunPreset:
    """Keeps settings under a name; one of the same name is replaced."""
    kept, _new = RunPreset.objects.update_or_create(
        team=team, name=name.strip()[:NAME_LENGTH], defaults={"values": dict(values), "created_by": user}
    )
    return kept


def forget(team: Team, preset_id: UUID) -> None:
    """Deletes a preset of the team; of another team, or gone already, it changes nothing."""
    RunPreset.objects.filter(team=team, pk=preset_id).delete()
