"""What is said of an ending: to machines as JSON, to people as a subject and a few lines."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from django.urls import reverse
from django.utils.translation import gettext as _

from webapp.accounts.models import Team
from webapp.core.formats import one_line
from webapp.core.links import site_origin
from webapp.notices.models import RunEnding, Webhook
from webapp.settings.env import ENV

SUBJECT_LENGTH = 200


def site_url(path: str) -> str:
    """A path of the site as people reach it from outside: by the first of GRAFT_TRUSTED_ORIGINS, else where the server listens."""
    return (site_origin() or f"http://{ENV.host}:{ENV.port}") + path


def page_of(ending: RunEnding) -> str:
    """The path of the page that says more: the run's; for a job of the API that ended before it had a run, the one its facts name."""
    return str(ending.facts.get("page") or reverse("runs:detail", args=[ending.run_id]))


def event_type(ending: RunEnding, webhook: Webhook) -> str:
    """`run.succeeded`, `run.failed` or `run.cancelled`; in OpenAI's style `fine_tuning.job.succeeded` and so on."""
    return f"{'fine_tuning.job' if webhook.style == Webhook.Style.OPENAI else 'run'}.{ending.state}"


def payload(ending: RunEnding, webhook: Webhook) -> str:
    """The body of a webhook's message."""
    if webhook.style == Webhook.Style.OPENAI:
        return _event(ending.pk, event_type(ending, webhook), ending.at, f"ftjob-{ending.run_id.hex}")
    facts = ending.facts
    failure = {"code": facts["failure_code"], "message": facts["message"], "remedy": facts["remedy"]} if ending.failed else None
    run = {
        "id": str(ending.run_id),
        "url": site_url(page_of(ending)),
        "state": ending.state,
        "attempt": ending.attempt,
        **{name: facts[name] for name in ("name", "method", "model", "dataset", "owner")},
        "failure": failure,
    }
    return message(event_type(ending, webhook), ending.at, ending.team, {"run": run})


def test_message(webhook: Webhook, at: datetime) -> str:
    """The body of a message that says nothing but that the way is open."""
    if webhook.style == Webhook.Style.OPENAI:
        return _event(webhook.pk, "test", at, f"webhook_{webhook.pk.hex}")
    return message("test", at, webhook.team, {"webhook": str(webhook.id)})


def _event(key: UUID, kind: str, at: datetime, subject: str) -> str:
    """An event as OpenAI's webhooks tell it: what it is about is asked for afterwards."""
    body = {"object": "event", "id": f"evt_{key.hex}", "type": kind, "created_at": int(at.timestamp()), "data": {"id": subject}}
    return json.dumps(body, separators=(",", ":"))


def message(kind: str, at: datetime, team: Team, data: dict[str, Any]) -> str:
    """The JSON of a message: `type`, `timestamp`, `data`, of which `team` is always part."""
    body = {"type": kind, "timestamp": at.isoformat(), "data": {"team": {"name": team.name, "slug": team.slug}, **data}}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))


def title(ending: RunEnding) -> str:
    """`support-11 has failed`, in the language that is active."""
    words = {
        "succeeded": _("%(name)s has succeeded"),
        "failed": _("%(name)s has failed"),
        "cancelled": _("%(name)s was cancelled"),
    }
    return one_line(words[ending.state] % {"name": ending.facts["name"]})[:SUBJECT_LENGTH]


def summary(ending: RunEnding) -> str:
    """One or two lines: why it failed and what to do, else what was trained."""
    facts = ending.facts
    if ending.failed:
        return f"{facts['message']} {facts['remedy']}".strip()
    return _("%(method)s on %(model)s with %(dataset)s") % {name: facts[name] for name in ("method", "model", "dataset")}


def letter(ending: RunEnding) -> str:
    """The text of an e-mail."""
    link, settings = site_url(page_of(ending)), site_url(reverse("notices:notifications", args=[ending.team.slug]))
    why = _("You are told because of your settings: %(link)s") % {"link": settings}
    return f"{title(ending)}.\n\n{summary(ending)}\n\n{link}\n\n-- \n{why}\n"
