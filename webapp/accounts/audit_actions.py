"""The catalogue of what the audit log records: each action's stable code and its words."""

from __future__ import annotations

from django.db.models import TextChoices
from django.utils.translation import gettext_lazy as _


class Action(TextChoices):
    """What somebody did. A code stands in the database for good: add, never rename."""

    TEAM_CREATED = "team.created", _("Team created")
    TEAM_RENAMED = "team.renamed", _("Team renamed")
    TEAM_DELETED = "team.deleted", _("Team deleted")
    TWO_FACTOR_REQUIRED = "team.two_factor", _("Two-factor rule changed")
    MEMBER_JOINED = "member.joined", _("Member joined")
    MEMBER_ROLE = "member.role", _("Role changed")
    MEMBER_REMOVED = "member.removed", _("Member removed")
    MEMBER_LEFT = "member.left", _("Member left")
    OWNERSHIP = "member.ownership", _("Ownership handed over")
    INVITATION_SENT = "invitation.sent", _("Invitation made")
    INVITATION_RENEWED = "invitation.renewed", _("Invitation renewed")
    INVITATION_REVOKED = "invitation.revoked", _("Invitation revoked")
    TOKEN_CREATED = "token.created", _("API token made")
    TOKEN_REVOKED = "token.revoked", _("API token revoked")
    SIGN_IN_FAILED = "sign_in.failed", _("Sign-in failed")
    PASSWORD_CHANGED = "password.changed", _("Password changed")
    TWO_FACTOR_ON = "two_factor.on", _("Second factor added")
    TWO_FACTOR_OFF = "two_factor.off", _("Second factor removed")
    TWO_FACTOR_CODES = "two_factor.codes", _("Recovery codes made anew")
    RUN_CREATED = "run.created", _("Run queued")
    RUN_EXTENDED = "run.extended", _("Run extended")
    RUN_CANCELLED = "run.cancelled", _("Run cancelled")
    RUN_DELETED = "run.deleted", _("Run deleted")
    RUN_ARCHIVED = "run.archived", _("Run archived")
    RUN_UNARCHIVED = "run.unarchived", _("Run taken out of the archive")
    RUN_TAGGED = "run.tagged", _("Run tagged")
    RUN_UNTAGGED = "run.untagged", _("Tag taken off a run")
    RUN_PRIORITY = "run.priority", _("Run's priority changed")
    RUN_MOVED = "run.moved", _("Run moved in the queue")
    WORKER_DRAINED = "worker.drained", _("Worker drained")
    WORKER_RESUMED = "worker.resumed", _("Worker takes runs again")
    DATASET_UPLOADED = "dataset.uploaded", _("Dataset uploaded")
    DATASET_DELETED = "dataset.deleted", _("Dataset deleted")
    MODEL_ADDED = "model.added", _("Model added")
    MODEL_DELETED = "model.deleted", _("Model deleted")
    ARTIFACT_DOWNLOADED = "artifact.downloaded", _("Artifact downloaded")
    ARTIFACT_DELETED = "artifact.deleted", _("Artifact deleted")
    WEBHOOK_ADDED = "webhook.added", _("Webhook added")
    WEBHOOK_SECRET = "webhook.secret", _("Webhook's secret made anew")
    WEBHOOK_ON = "webhook.on", _("Webhook switched on")
    WEBHOOK_OFF = "webhook.off", _("Webhook switched off")
    WEBHOOK_DELETED = "webhook.deleted", _("Webhook deleted")
    QUOTA_CHANGED = "quota.changed", _("Quota changed")
