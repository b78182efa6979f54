"""The page of notifications: who sees and changes what, the secret that is shown once, and the feed of the open page."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from tests.webapp.notices.receiver import Receiver
from tests.webapp.notices.test_telling import fail
from tests.webapp.runs.rows import Bench, make_bench
from webapp.accounts.models import AuditEvent, Membership, Role, User
from webapp.notices.models import Delivery, Preference, RunEnding, Webhook
from webapp.notices.services.signing import secret_of
from webapp.notices.services.webhooks import AT_MOST
from webapp.work.models import OutboxMessage

HOOK = "https://example.com/hook"


@pytest.fixture
def alice(bench: Bench, client: Client) -> Client:
    client.force_login(bench.user)
    return client


@pytest.fixture
def bob(bench: Bench) -> Client:
    """A member, who launches runs but manages nothing."""
    user = User.objects.create_user(username="bob")
    Membership.objects.create(team=bench.team, user=user, role=Role.MEMBER)
    client = Client()
    client.force_login(user)
    return client


def url(bench: Bench, name: str = "notifications", *args: Any) -> str:
    return reverse(f"notices:{name}", args=[bench.team.slug, *args])


def hook(bench: Bench, **fields: Any) -> Webhook:
    return Webhook.objects.create(team=bench.team, url=HOOK, created_by=bench.user, **fields)


def delivered(webhook: Webhook, **fields: Any) -> Delivery:
    values = {"webhook": webhook, "subject": "test", "body": "{}", "state": "sent", "attempts": 1, "next_at": timezone.now()}
    return Delivery.objects.create(**{**values, **fields})


def test_what_a_person_wants_to_hear_is_kept(bench: Bench, alice: Client) -> None:
    assert alice.get(url(bench)).content.decode().count("checked") == 5
    answer = alice.post(url(bench, "preferences"), {"runs": "all", "failed": "on"}, follow=True)
    assert "Saved." in answer.content.decode()
    preference = Preference.objects.get()
    assert (preference.runs, preference.ended, preference.failed, preference.email) == ("all", False, True, False)
    alice.post(url(bench, "preferences"), {"runs": "none"})
    assert Preference.objects.get().runs == "none"
    assert alice.post(url(bench, "preferences"), {"runs": "some"}).status_code == 422


def test_the_secret_is_shown_once_and_kept_nowhere(bench: Bench, alice: Client) -> None:
    answer = alice.post(url(bench, "add-webhook"), {"url": HOOK, "failed": "on"})
    webhook = Webhook.objects.get()
    secret = secret_of(webhook)
    assert secret in answer.content.decode()
    assert (webhook.ended, webhook.failed, webhook.active) == (False, True, True)
    assert secret not in alice.get(url(bench)).content.decode()
    row = Webhook.objects.filter(pk=webhook.pk).values().get()
    assert not any(secret.removeprefix("whsec_") in str(value) for value in row.values())
    renewed = alice.post(url(bench, "renew-secret", webhook.pk)).content.decode()
    webhook.refresh_from_db()
    assert secret not in renewed
    assert secret_of(webhook) in renewed
    assert set(AuditEvent.objects.values_list("action", flat=True)) >= {"webhook.added", "webhook.secret"}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"url": "http://example.com/", "failed": "on"}, "plain http"),
        ({"url": "https://10.0.0.1/", "failed": "on"}, "private network"),
        ({"url": HOOK}, "Choose one of the two"),
        ({"failed": "on"}, "This field is required"),
    ],
)
def test_a_webhook_that_cannot_be_keeps_what_was_typed(bench: Bench, alice: Client, data: dict[str, str], words: str) -> None:
    answer = alice.post(url(bench, "add-webhook"), data)
    assert answer.status_code == 422
    assert words in answer.content.decode()
    assert data.get("url", "") in answer.content.decode()
    assert not Webhook.objects.exists()


def test_there_are_so_many_webhooks_and_no_more(bench: Bench, alice: Client) -> None:
    for _ in range(AT_MOST):
        hook(bench)
    answer = alice.post(url(bench, "add-webhook"), {"url": HOOK, "failed": "on"})
    assert answer.status_code == 422
    assert f"The team has {AT_MOST} webhooks" in answer.content.decode()


def test_switch_test_and_delete_by_name(bench: Bench, alice: Client) -> None:
    webhook = hook(bench)
    alice.post(url(bench, "switch-webhook", webhook.pk), {"active": "0"})
    webhook.refresh_from_db()
    assert not webhook.active
    alice.post(url(bench, "switch-webhook", webhook.pk), {"active": "1"})
    alice.post(url(bench, "test-webhook", webhook.pk))
    delivery = Delivery.objects.get()
    assert (delivery.subject, delivery.state) == ("test", "waiting")
    assert OutboxMessage.objects.get(task="notices.deliver").subject == delivery.id
    alice.post(url(bench, "delete-webhook", webhook.pk), {"confirm": "example.com"})
    assert Webhook.objects.exists()
    alice.post(url(bench, "delete-webhook", webhook.pk), {"confirm": f" {HOOK} "})
    assert not Webhook.objects.exists()


def test_the_log_and_sending_again(bench: Bench, alice: Client, receiver: Receiver) -> None:
    webhook = hook(bench)
    failed = delivered(webhook, state="failed", status_code=503, attempts=8, answer="<b>busy</b>")
    waiting = delivered(webhook, state="waiting")
    page = alice.get(url(bench)).content.decode()
    assert "503" in page
    assert "&lt;b&gt;busy" in page
    alice.post(url(bench, "send-again", waiting.pk))
    assert not OutboxMessage.objects.exists()
    part = alice.post(url(bench, "send-again", failed.pk), headers={"HX-Request": "true"})
    assert part.content.decode().lstrip().startswith('<section id="deliveries"')
    failed.refresh_from_db()
    assert (failed.state, failed.attempts, failed.status_code) == ("waiting", 0, None)
    assert OutboxMessage.objects.get().subject == failed.id


def test_webhooks_are_for_those_who_manage(bench: Bench, bob: Client) -> None:
    webhook = hook(bench)
    delivery = delivered(webhook)
    page = bob.get(url(bench)).content.decode()
    assert HOOK not in page
    assert "example.com" not in bob.get(url(bench), headers={"HX-Request": "true"}).content.decode()
    names = ("switch-webhook", "renew-secret", "test-webhook", "delete-webhook")
    doors = [("add-webhook", ()), ("send-again", (delivery.pk,)), *((name, (webhook.pk,)) for name in names)]
    for name, args in doors:
        assert bob.post(url(bench, name, *args), {"url": HOOK, "failed": "on", "confirm": HOOK}).status_code == 403, name
    webhook.refresh_from_db()
    assert (Webhook.objects.count(), webhook.active, webhook.generation) == (1, True, 1)


def test_nothing_of_another_team_is_reached(bench: Bench, alice: Client) -> None:
    other = make_bench("charlie")
    webhook = hook(other)
    delivery = delivered(webhook)
    for name, pk in (
        ("switch-webhook", webhook.pk),
        ("renew-secret", webhook.pk),
        ("delete-webhook", webhook.pk),
        ("send-again", delivery.pk),
    ):
        assert alice.post(url(bench, name, pk), {"confirm": HOOK}).status_code == 404, name
        assert alice.post(url(other, name, pk), {"confirm": HOOK}).status_code == 404, name
    assert alice.get(url(other, "feed")).status_code == 404
    assert Webhook.objects.get().generation == 1


def test_the_feed_gives_what_is_new_and_wanted(bench: Bench, alice: Client, bob: Client) -> None:
    first = alice.get(url(bench, "feed")).json()
    assert first["endings"] == []
    ending = fail(bench.launch(name="support-11"))
    second = alice.get(url(bench, "feed"), {"after": first["now"]}).json()
    assert second["endings"] == [
        {
            "id": str(ending.id), "title": "support-11 has failed", "url": reverse("runs:detail", args=[ending.run_id]),
            "body": "The GPU has too little memory. Take a smaller micro-batch.",
        }
    ]  # fmt: skip
    assert alice.get(url(bench, "feed"), {"after": second["now"]}).json()["endings"] == []
    # Bob hears of his own runs alone.
    assert bob.get(url(bench, "feed"), {"after": first["now"]}).json()["endings"] == []
    # Who was away for long is not told of everything, and a broken cursor of nothing.
    RunEnding.objects.update(at=timezone.now() - timedelta(hours=1))
    assert alice.get(url(bench, "feed"), {"after": "2020-01-01T00:00:00Z"}).json()["endings"] == []
    for broken in ("x", "2026-13-01", "2026-11-23T10:00:00"):
        assert alice.get(url(bench, "feed"), {"after": broken}).status_code == 200


def test_the_page_makes_as_many_queries_for_many_deliveries_as_for_few(bench: Bench, alice: Client) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            alice.get(url(bench))
        return len(captured)

    delivered(hook(bench))
    queries()
    few = queries()
    for _ in range(9):
        delivered(hook(bench), ending=fail(bench.launch()))
    assert queries() == few
