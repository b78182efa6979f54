"""Use case: an administrator of the site sets a team's limits."""

from __future__ import annotations

from typing import Any

from django.db import transaction

from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Team, User
from webapp.accounts.services.audit import record
from webapp.quotas.models import Quota


def set_quota(*, team: Team, user: User, limits: dict[str, Any]) -> Quota:
    """Sets all limits (columns of `Quota`, None for no limit). What is above a new limit stays; nothing is stopped or deleted."""
    with transaction.atomic():
        quota, _ = Quota.objects.update_or_create(team=team, defaults={**limits, "changed_by": user})
        record(Action.QUOTA_CHANGED, team=team, actor=user, thing=team, detail=limits)
    return quota
