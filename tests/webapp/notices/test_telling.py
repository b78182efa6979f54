"""From the end of a run to a signed message and an e-mail: who is told, once each, with retries."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.db import transaction
from django.utils import timezone

from jobs.errors import UserError
from tests.webapp.notices.receiver import Receiver, verified
from tests.webapp.runs.rows import Bench
from webapp.accounts.models import Membership, Role, User
from webapp.notices.models import Delivery, Preference, RunEnding, Webhook
from webapp.notices.services import deliver as delivering
from webapp.notices.services.announce import TELL_TASK
from webapp.notices.services.deliver import PAUSES_SECONDS, deliver
from webapp.notices.services.reconcile import reconcile
from webapp.notices.services.signing import secret_of
from webapp.notices.services.tell import DELIVER_TASK, tell
from webapp.notices.services.webhooks import add_webhook, new_secret, send_again, send_test
from webapp.runs import lease
from webapp.runs.models import Run
from webapp.runs.services.cancel import cancel
from webapp.runs.services.delete import delete
from webapp.runs.services.retry import retry
from webapp.runs.states import State
from webapp.work.models import OutboxMessage

FAILURE = lease.Failure("cuda_oom", "The GPU has too little memory.", "Take a smaller micro-batch.", 80)


def fail(run: Run) -> RunEnding:
    claimed = lease.claim(run.id, "train0")
    assert claimed is not None
    assert lease.move(run.id, claimed.attempt, to=State.FAILED, frm=(State.STARTING,), actor="train0", **FAILURE.fields())
    return RunEnding.objects.get(run_id=run.id, attempt=claimed.attempt)


def rung(task: str) -> list[Any]:
    return list(OutboxMessage.objects.filter(task=task).values_list("subject", flat=True))


def webhook_at(bench: Bench, url: str = "https://example.com/hook", **fields: Any) -> Webhook:
    return Webhook.objects.create(team=bench.team, url=url, created_by=bench.user, **fields)


@pytest.fixture
def mailing(settings: Any) -> None:
    """The site has a mail server; the addresses are those of the people."""
    settings.GRAFT_EMAIL = True


def address(user: User) -> User:
    user.email = f"{user.username}@example.com"
    user.save()
    return user


# -- the end of a run --------------------------------------------------------------------------------------------------


def test_every_end_is_announced_in_its_own_transaction(bench: Bench) -> None:
    failed, cancelled, lost = (bench.launch(name=name) for name in ("failed", "cancelled", "lost"))
    ending = fail(failed)
    cancel(cancelled, actor="alice")
    lease.claim(lost.id, "train0")
    lease.interrupt(lost.id, 1, actor="reaper", detail="", failure=FAILURE, retries=0)
    assert set(RunEnding.objects.values_list("run_id", "attempt", "state")) == {
        (failed.id, 1, "failed"), (cancelled.id, 0, "cancelled"), (lost.id, 1, "failed"),
    }  # fmt: skip
    assert set(rung(TELL_TASK)) == set(RunEnding.objects.values_list("id", flat=True))
    assert ending.facts == {
        "name": "failed", "method": "lora", "model": "Tiny", "dataset": "tickets", "owner": "alice",
        "message": FAILURE.message, "remedy": FAILURE.remedy, "failure_code": "cuda_oom",
    }  # fmt: skip
    assert ending.owner == bench.user


def test_an_end_that_is_rolled_back_is_not_announced(bench: Bench) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")

    def ends_and_fails() -> None:
        with transaction.atomic():
            assert lease.move(run.id, 1, to=State.FAILED, frm=(State.STARTING,), actor="train0")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        ends_and_fails()
    assert not RunEnding.objects.exists()
    assert rung(TELL_TASK) == []


def test_a_rest_is_no_end_and_another_attempt_is_another(bench: Bench) -> None:
    run = bench.launch()
    lease.claim(run.id, "train0")
    lease.interrupt(run.id, 1, actor="reaper", detail="", failure=FAILURE, retries=3)
    assert not RunEnding.objects.exists()
    fail(run)
    retry(Run.objects.get(pk=run.pk), actor="alice")
    fail(run)
    assert list(RunEnding.objects.order_by("attempt").values_list("attempt", flat=True)) == [2, 3]


def test_the_same_end_twice_is_one(bench: Bench) -> None:
    run = bench.launch()
    for _ in range(2):
        cancel(run, actor="alice")
        retry(run, actor="alice")
    assert RunEnding.objects.count() == 1
    assert len(rung(TELL_TASK)) == 1


# -- who is told -------------------------------------------------------------------------------------------------------


def test_webhooks_that_want_it_are_told_once(bench: Bench) -> None:
    wanting = webhook_at(bench)
    webhook_at(bench, failed=False)
    webhook_at(bench, active=False)
    ending = fail(bench.launch(name="support-11"))
    tell(ending.id)
    tell(ending.id)
    delivery = Delivery.objects.get()
    assert (delivery.webhook, delivery.subject, delivery.state) == (wanting, "run.failed", "waiting")
    assert rung(DELIVER_TASK) == [delivery.id]
    body = json.loads(delivery.body)
    assert body["type"] == "run.failed"
    assert body["data"]["team"] == {"name": "alice's team", "slug": "alice"}
    run = body["data"]["run"]
    assert (run["id"], run["name"], run["state"], run["attempt"]) == (str(ending.run_id), "support-11", "failed", 1)
    assert run["url"].endswith(f"/runs/{ending.run_id}/")
    assert run["failure"] == {"code": "cuda_oom", "message": FAILURE.message, "remedy": FAILURE.remedy}


def test_a_run_that_is_deleted_at_once_is_told_all_the_same(bench: Bench) -> None:
    webhook_at(bench)
    run = bench.launch()
    ending = fail(run)
    delete(Run.objects.get(pk=run.pk), actor="alice")
    tell(ending.id)
    assert json.loads(Delivery.objects.get().body)["data"]["run"]["name"] == "tickets"


def test_people_are_told_by_what_they_have_chosen(bench: Bench, mailing: None) -> None:
    people = {name: address(User.objects.create_user(username=name)) for name in ("bob", "cleo", "dan", "eve", "finn")}
    for user in people.values():
        Membership.objects.create(team=bench.team, user=user, role=Role.MEMBER)
    choices = {
        "bob": {"runs": "all"},
        "cleo": {"runs": "all", "failed": False},
        "dan": {"runs": "none"},
        "eve": {"runs": "all", "email": False},
    }
    for name, choice in choices.items():
        Preference.objects.create(team=bench.team, user=people[name], **choice)
    address(bench.user)
    address(User.objects.create_user(username="stranger"))
    tell(fail(bench.launch()).id)
    # Alice by default, since it is hers; Finn's defaults are his own runs.
    assert set(Delivery.objects.values_list("user__username", flat=True)) == {"alice", "bob"}


def test_nobody_is_written_to_without_a_mail_server_or_an_address(bench: Bench, settings: Any) -> None:
    settings.GRAFT_EMAIL = True
    tell(fail(bench.launch()).id)
    settings.GRAFT_EMAIL = False
    address(bench.user)
    tell(fail(bench.launch()).id)
    assert not Delivery.objects.exists()


def test_an_e_mail_in_the_persons_language(bench: Bench, mailing: None) -> None:
    address(bench.user)
    ending = fail(bench.launch(name="support-11"))
    tell(ending.id)
    delivery = Delivery.objects.get()
    deliver(delivery.id)
    deliver(delivery.id)
    (letter,) = mail.outbox
    assert (letter.to, letter.subject) == (["alice@example.com"], "support-11 has failed")
    for words in (FAILURE.message, FAILURE.remedy, f"/runs/{ending.run_id}/"):
        assert words in letter.body
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("sent", 1)


def test_who_has_left_the_team_is_not_written_to(bench: Bench, mailing: None) -> None:
    address(bench.user)
    tell(fail(bench.launch()).id)
    Membership.objects.all().delete()
    deliver(Delivery.objects.get().id)
    assert Delivery.objects.get().state == "failed"
    assert mail.outbox == []


# -- how ---------------------------------------------------------------------------------------------------------------


def test_a_signed_message_is_taken_and_its_signature_is_right(bench: Bench, receiver: Receiver, allowed: None) -> None:
    webhook = add_webhook(team=bench.team, user=bench.user, url=receiver.url, ended=True, failed=True)
    secret = secret_of(webhook)
    tell(fail(bench.launch()).id)
    delivery = Delivery.objects.get()
    deliver(delivery.id)
    ((_path, headers, body),) = receiver.calls
    assert body.decode() == delivery.body
    assert headers["content-type"] == "application/json"
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 5
    assert verified(secret, headers, body)
    assert not verified(secret, headers, body + b" ")
    assert not verified(secret_of(new_secret(webhook, user=bench.user)), headers, body)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.status_code, delivery.answer, delivery.attempts) == ("sent", 200, "thanks", 1)
    # A second doorbell finds nothing to do.
    deliver(delivery.id)
    assert len(receiver.calls) == 1


def test_this_machine_is_refused_without_the_setting(bench: Bench, receiver: Receiver) -> None:
    with pytest.raises(UserError, match="cannot be called"):
        add_webhook(team=bench.team, user=bench.user, url=receiver.url, ended=True, failed=True)
    assert not Webhook.objects.exists()
    # One that is there already, by an older setting, is not called either.
    webhook_at(bench, receiver.url)
    tell(fail(bench.launch()).id)
    deliver(Delivery.objects.get().id)
    assert receiver.calls == []
    delivery = Delivery.objects.get()
    assert (delivery.state, delivery.status_code) == ("waiting", None)
    assert "GRAFT_OUTBOUND_HOSTS" in delivery.answer


def due_now(delivery: Delivery) -> None:
    Delivery.objects.filter(pk=delivery.pk).update(next_at=timezone.now() - timedelta(seconds=1))


def test_a_failing_receiver_is_asked_again_with_growing_pauses_and_given_up(bench: Bench, receiver: Receiver, allowed: None) -> None:
    webhook_at(bench, receiver.url)
    receiver.status = 503
    tell(fail(bench.launch()).id)
    delivery = Delivery.objects.get()
    for attempt, pause in enumerate(PAUSES_SECONDS, 1):
        deliver(delivery.id)
        delivery.refresh_from_db()
        assert (delivery.state, delivery.attempts, delivery.status_code) == ("waiting", attempt, 503)
        assert delivery.next_at - timezone.now() == pytest.approx(timedelta(seconds=pause), abs=timedelta(seconds=5))
        deliver(delivery.id)
        assert len(receiver.calls) == attempt
        due_now(delivery)
    deliver(delivery.id)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("failed", len(PAUSES_SECONDS) + 1)
    # All of them the same message.
    assert len({headers["webhook-id"] for _path, headers, _body in receiver.calls}) == 1
    receiver.status = 204
    send_again(delivery)
    deliver(delivery.id)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts, delivery.status_code) == ("sent", 1, 204)
    assert receiver.calls[-1][1]["webhook-id"] == receiver.calls[0][1]["webhook-id"]


def test_an_attempt_that_dies_counts_and_is_made_again_later(
    bench: Bench, allowed: None, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    webhook_at(bench, receiver.url)
    tell(fail(bench.launch()).id)
    delivery = Delivery.objects.get()

    def dies(*_: Any) -> Any:
        raise SystemExit

    monkeypatch.setattr(delivering, "post", dies)
    with pytest.raises(SystemExit):
        deliver(delivery.id)
    delivery.refresh_from_db()
    assert (delivery.state, delivery.attempts) == ("waiting", 1)
    assert delivery.next_at > timezone.now()
    monkeypatch.undo()


def test_gone_switches_the_webhook_off(bench: Bench, receiver: Receiver, allowed: None) -> None:
    webhook = webhook_at(bench, receiver.url)
    receiver.status = 410
    tell(fail(bench.launch()).id)
    deliver(Delivery.objects.get().id)
    webhook.refresh_from_db()
    assert not webhook.active
    assert Delivery.objects.get().state == "failed"


def test_a_test_message(bench: Bench, receiver: Receiver, allowed: None) -> None:
    webhook = webhook_at(bench, receiver.url)
    delivery = send_test(webhook)
    assert rung(DELIVER_TASK) == [delivery.id]
    deliver(delivery.id)
    assert json.loads(receiver.calls[0][2])["type"] == "test"


# -- lost doorbells ----------------------------------------------------------------------------------------------------


def test_lost_doorbells_are_rung_again_and_pauses_end(bench: Bench) -> None:
    webhook_at(bench)
    ending = fail(bench.launch())
    long_ago = timezone.now() - timedelta(hours=1)
    reconcile()
    assert rung(TELL_TASK) == [ending.id]
    OutboxMessage.objects.update(created_at=long_ago)
    reconcile()
    assert rung(TELL_TASK) == [ending.id] * 2
    tell(ending.id)
    delivery = Delivery.objects.get()
    reconcile()
    assert rung(DELIVER_TASK) == [delivery.id]
    # It waits for its pause; when that is over it is rung for once.
    Delivery.objects.update(next_at=timezone.now() + timedelta(seconds=60))
    OutboxMessage.objects.update(created_at=long_ago)
    reconcile()
    assert len(rung(DELIVER_TASK)) == 1
    Delivery.objects.update(next_at=timezone.now() - timedelta(seconds=1))
    reconcile()
    reconcile()
    assert len(rung(DELIVER_TASK)) == 2


def test_what_is_old_is_forgotten(bench: Bench) -> None:
    webhook = webhook_at(bench)
    tell(fail(bench.launch()).id)
    send_test(webhook)
    RunEnding.objects.update(at=timezone.now() - timedelta(days=31))
    Delivery.objects.update(created_at=timezone.now() - timedelta(days=31))
    reconcile()
    assert not RunEnding.objects.exists()
    assert not Delivery.objects.exists()
