"""What a team may use, and the ledger of the devices' time that it has used."""

from __future__ import annotations

from django.db import models

from webapp.accounts.models import Team, User


class Quota(models.Model):
    """The limits of a team, set by administrators of the site. None is no limit; a team without a row has none.

    `compute_hours` are those of a calendar month (UTC): an hour of one GPU, or of one CPU worker, is one.
    """

    team = models.OneToOneField(Team, on_delete=models.CASCADE, primary_key=True, related_name="quota")
    storage_bytes = models.BigIntegerField(null=True, blank=True)
    running_runs = models.PositiveIntegerField(null=True, blank=True)
    queued_runs = models.PositiveIntegerField(null=True, blank=True)
    compute_hours = models.FloatField(null=True, blank=True)
    changed_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    changed_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"quota of {self.team_id}"


class ComputeUse(models.Model):
    """The time that one attempt of a run held a worker: opened by the claim, closed where the worker lets go or loses it.

    It names the run by id alone, so that a deleted run does not give its hours back. Open rows are the runs that run now.
    """

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="compute_uses")
    run_id = models.UUIDField()
    attempt = models.PositiveIntegerField()
    device = models.CharField(max_length=16, blank=True)
    devices = models.PositiveSmallIntegerField(default=1)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run_id", "attempt"], name="compute_use_unique_in_attempt")]
        indexes = [
            models.Index(fields=["team", "started_at"], name="compute_use_team_started"),
            models.Index(fields=["ended_at"], name="compute_use_ended"),
        ]

    def __str__(self) -> str:
        return f"{self.run_id} attempt {self.attempt}"
