"""Endings of runs, who is to be told of them, and what came of telling."""

from __future__ import annotations

import uuid
from urllib.parse import urlsplit

from django.db import models
from django.utils.translation import gettext_lazy as _

from webapp.accounts.models import Team, User


class RunEnding(models.Model):
    """The end of a run, written in the transaction of the move itself. One for each run, attempt and state: that makes telling idempotent.

    `facts` is what is told (`services.announce`); the run is named by id alone, so that deleting it at once loses no word.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="endings")
    run_id = models.UUIDField()
    attempt = models.PositiveIntegerField()
    state = models.CharField(max_length=16)
    owner = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    facts = models.JSONField(default=dict)
    at = models.DateTimeField()
    told_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["run_id", "attempt", "state"], name="ending_unique")]
        indexes = [models.Index(fields=["team", "at"], name="ending_team_at")]

    def __str__(self) -> str:
        return f"{self.run_id} {self.attempt} {self.state}"

    @property
    def failed(self) -> bool:
        """Whether it ended by a failure."""
        return self.state == "failed"


class Preference(models.Model):
    """Of what a person is told in a team, by e-mail and by the open page. A member without a row has the defaults."""

    class Runs(models.TextChoices):
        OWN = "own", _("my own runs")
        ALL = "all", _("all runs of the team")
        NONE = "none", _("no runs")

    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="+")
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="notice_preferences")
    runs = models.CharField(max_length=8, choices=Runs.choices, default=Runs.OWN)
    ended = models.BooleanField(default=True)
    failed = models.BooleanField(default=True)
    email = models.BooleanField(default=True)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="one_preference_per_member")]

    def __str__(self) -> str:
        return f"{self.user_id} in {self.team_id}: {self.runs}"

    def wants(self, ending: RunEnding) -> bool:
        """Whether the person wants to hear of this ending."""
        whose = self.runs == self.Runs.ALL or (self.runs == self.Runs.OWN and ending.owner_id == self.user_id)
        return whose and (self.failed if ending.failed else self.ended)


class Webhook(models.Model):
    """An address of a team that is told of endings by signed requests. Its secret is derived (`services.secrets`), never stored."""

    class Style(models.TextChoices):
        """What a message holds: all that Graft knows of the run, or what OpenAI's clients know how to read."""

        GRAFT = "graft", "Graft"
        OPENAI = "openai", "OpenAI"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    team = models.ForeignKey(Team, on_delete=models.CASCADE, related_name="webhooks")
    url = models.CharField(max_length=500)
    style = models.CharField(max_length=8, choices=Style.choices, default=Style.GRAFT)
    ended = models.BooleanField(default=True)
    failed = models.BooleanField(default=True)
    active = models.BooleanField(default=True)
    generation = models.PositiveIntegerField(default=1)
    created_by = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["created_at"]

    def __str__(self) -> str:
        return self.url

    @property
    def host(self) -> str:
        """Host and port of its address: the rest may hold a key of the receiver's."""
        return urlsplit(self.url).netloc


class Delivery(models.Model):
    """One word to one receiver, a webhook or a person's mail box: what is sent, and what came of it.

    `ending` is None for a test message. `body` stays as it was first written, so that a message sent again is the same message.
    """

    class State(models.TextChoices):
        WAITING = "waiting", _("Waiting")
        SENT = "sent", _("Delivered")
        FAILED = "failed", _("Given up")

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    ending = models.ForeignKey(RunEnding, null=True, on_delete=models.CASCADE, related_name="deliveries")
    webhook = models.ForeignKey(Webhook, null=True, on_delete=models.CASCADE, related_name="deliveries")
    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+")
    subject = models.CharField(max_length=200)
    body = models.TextField()
    state = models.CharField(max_length=8, choices=State.choices, default=State.WAITING)
    attempts = models.PositiveIntegerField(default=0)
    next_at = models.DateTimeField()
    last_at = models.DateTimeField(null=True)
    status_code = models.PositiveIntegerField(null=True)
    answer = models.TextField(blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(fields=["ending", "webhook"], name="delivery_unique_to_webhook"),
            models.UniqueConstraint(fields=["ending", "user"], name="delivery_unique_to_user"),
            models.CheckConstraint(
                condition=models.Q(webhook=None, user__isnull=False) | models.Q(webhook__isnull=False, user=None),
                name="delivery_to_one_receiver",
            ),
        ]
        indexes = [models.Index(fields=["state", "next_at"], name="delivery_due")]

    def __str__(self) -> str:
        return f"{self.subject} to {self.webhook_id or self.user_id}"
