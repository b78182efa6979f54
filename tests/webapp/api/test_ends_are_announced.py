"""The end of a job is told to webhooks in OpenAI's form, and the official client takes it; so is that of a job that never had a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from openai import InvalidWebhookSignatureError, OpenAI

from tests.webapp.api.given import Program, id_of, program
from tests.webapp.cast import Cast
from tests.webapp.files.given import CHAT, lines, read_rows, stored
from tests.webapp.notices.receiver import Receiver, receiving
from webapp.accounts.models import User
from webapp.api.services.reconcile import reconcile
from webapp.catalog.models import BaseModel
from webapp.files.models import File
from webapp.notices.models import Delivery, RunEnding, Webhook
from webapp.notices.services.deliver import deliver
from webapp.notices.services.signing import secret_of
from webapp.notices.services.tell import tell
from webapp.notices.services.webhooks import send_test
from webapp.runs.models import Run
from webapp.settings.env import ENV

BAD = b'{"messages": [{"role": "user", "content": "and?"}]}\n'
MODEL = "acme/Tiny-1"


@pytest.fixture
def bob(cast: Cast) -> Program:
    BaseModel.objects.create(name="Tiny 1", source="hub", repository=MODEL, state="ready", revision="1", licence="Apache-2.0")
    return program(cast.team, cast.bob)


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
    with receiving() as server:
        yield server


def hook(cast: Cast, url: str, style: str = "openai") -> Webhook:
    return Webhook.objects.create(team=cast.team, url=url, style=style, created_by=cast.alice)


def waiting(cast: Cast, bob: Program, body: bytes) -> tuple[str, File]:
    """The id of a job whose file is not validated yet, and the file."""
    file = stored(cast.team, cast.bob, body, name="marv.jsonl")
    job = bob.ask("POST", "fine_tuning/jobs", {"model": MODEL, "training_file": id_of(file), "suffix": "night"}).json()
    assert job["status"] == "validating_files"
    return job["id"], file


def told(ending: RunEnding) -> Delivery:
    """What was written for the only receiver."""
    tell(ending.pk)
    return ending.deliveries.get()


def test_a_job_whose_file_is_bad_is_told_as_openai_tells_it(cast: Cast, bob: Program, receiver: Receiver) -> None:
    webhook = hook(cast, receiver.url)
    job, file = waiting(cast, bob, lines(CHAT) + BAD)
    read_rows(file)
    reconcile()
    reconcile()
    ending = RunEnding.objects.get()
    delivery = told(ending)
    tell(ending.pk)
    deliver(delivery.pk)
    ((_path, headers, body),) = receiver.calls
    assert json.loads(body) == {
        "object": "event",
        "id": f"evt_{ending.pk.hex}",
        "type": "fine_tuning.job.failed",
        "created_at": int(ending.at.timestamp()),
        "data": {"id": job},
    }
    client = OpenAI(api_key="graft_x", webhook_secret=secret_of(webhook))
    event = client.webhooks.unwrap(body, headers)
    assert (type(event).__name__, event.type) == ("FineTuningJobFailedWebhookEvent", "fine_tuning.job.failed")
    for changed, secret in (
        (body.replace(b"failed", b"cancelled"), secret_of(webhook)),
        (body, secret_of(hook(cast, "https://example.com"))),
    ):
        with pytest.raises(InvalidWebhookSignatureError):
            client.webhooks.unwrap(changed, headers, secret=secret)


def test_a_job_that_is_cancelled_while_it_waits_is_told_once(cast: Cast, bob: Program) -> None:
    hook(cast, "https://example.com/hook")
    job, file = waiting(cast, bob, lines(CHAT))
    assert bob.ask("POST", f"fine_tuning/jobs/{job}/cancel").json()["status"] == "cancelled"
    assert bob.ask("POST", f"fine_tuning/jobs/{job}/cancel").status_code == 400
    read_rows(file)
    reconcile()
    delivery = told(RunEnding.objects.get())
    assert (delivery.subject, json.loads(delivery.body)["data"]) == ("fine_tuning.job.cancelled", {"id": job})
    assert not Run.objects.exists()


def test_a_job_that_waits_has_no_end(cast: Cast, bob: Program) -> None:
    _job, file = waiting(cast, bob, lines(CHAT))
    reconcile()
    read_rows(file)
    reconcile()
    assert Run.objects.count() == 1
    assert not RunEnding.objects.exists()


def test_grafts_form_and_a_letter_name_the_page_of_the_rows(cast: Cast, bob: Program, settings: Any) -> None:
    hook(cast, "https://example.com/hook", "graft")
    settings.GRAFT_EMAIL = True
    User.objects.filter(pk=cast.bob.pk).update(email="bob@example.com")
    job, file = waiting(cast, bob, lines(CHAT) + BAD)
    read_rows(file)
    reconcile()
    ending = RunEnding.objects.get()
    tell(ending.pk)
    run = json.loads(ending.deliveries.get(user=None).body)["data"]["run"]
    page = f"/datasets/versions/{file.dataset_version_id}/"
    assert (run["id"], run["attempt"], run["state"], run["name"], run["owner"]) == (
        str(ending.run_id), 0, "failed", "marv-night", "bob",
    )  # fmt: skip
    assert f"ftjob-{ending.run_id.hex}" == job
    assert run["url"].endswith(page)
    assert run["failure"]["code"] == "invalid_training_file"
    assert cast.client(cast.bob).get(page).status_code == 200
    letter = ending.deliveries.get(user=cast.bob)
    assert letter.subject == "marv-night has failed"
    assert run["failure"]["message"].splitlines()[0] in letter.body
    assert f"{page}\n" in letter.body


def test_a_test_message_has_openais_form(cast: Cast, receiver: Receiver) -> None:
    webhook = hook(cast, receiver.url)
    deliver(send_test(webhook).pk)
    ((_path, headers, body),) = receiver.calls
    OpenAI(api_key="graft_x").webhooks.verify_signature(body, headers, secret=secret_of(webhook))
    message = json.loads(body)
    assert (message["object"], message["type"], message["data"]) == ("event", "test", {"id": f"webhook_{webhook.pk.hex}"})
