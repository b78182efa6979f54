"""Names, messages and file names that are markup, formulas, lines of a log or headers: they are shown and sent as what they are, text."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest
from django.apps import apps
from django.core import mail
from django.db import models
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from tests.webapp.cast import Cast
from tests.webapp.runs.stories import Story
from tests.webapp.test_every_url import ROUTES, Things
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Membership, Role, User
from webapp.accounts.services.audit import record
from webapp.accounts.services.invite import invite
from webapp.core.logs import LineFormatter
from webapp.core.spreadsheet import harmless
from webapp.notices.models import Delivery, RunEnding
from webapp.notices.services.deliver import deliver
from webapp.notices.services.tell import tell
from webapp.runs.models import Artifact, Run
from webapp.runs.states import State

# -- names that are markup, formulas, lines of a log -------------------------------------------------------------------

MARKUP = "'\"></script></title></textarea><xss onload=alert(1)><img src=x onerror=alert(1)>{{7*7}}{% now %}\u2028"
# Which columns are words of people or of the engine.
_WORDS = {
    "name",
    "title",
    "filename",
    "message",
    "remedy",
    "answer",
    "email",
    "subject",
    "note",
    "description",
    "licence",
    "repository",
    "label",
    "username",
    "actor_name",
    "object_name",
    "failure_message",
    "prefix",
    "detail",
    "url",
}


class Tags(HTMLParser):
    """Every tag that the browser would see, and every attribute that would run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "xss" or any(name.startswith("on") for name, _ in attrs) or ("src", "x") in attrs:
            self.found.append(f"<{tag} {attrs}>")
        for name, value in attrs:
            if name in ("href", "src", "action", "formaction") and (value or "").strip().lower().startswith(
                ("javascript:", "data:", "vbscript:")
            ):
                self.found.append(f"{name}={value}")


def poison() -> int:
    """Puts markup into every word of every row that there is; how many columns took it."""
    columns = 0
    for model in apps.get_models():
        if not model.__module__.startswith("webapp."):
            continue
        for field in model._meta.concrete_fields:
            if isinstance(field, models.CharField | models.TextField) and field.name in _WORDS and not field.choices:
                columns += 1
                for row in model._default_manager.all():
                    text = MARKUP + ("" if not field.unique else str(row.pk))
                    type(row)._default_manager.filter(pk=row.pk).update(**{field.name: text[: field.max_length or None]})
    return columns


def test_markup_in_every_name_and_message_is_shown_as_text(things: Things) -> None:
    story = Story(things.run).begin()
    story.emit("log", level="info", message=MARKUP)
    story.emit("warning", code=MARKUP, message=MARKUP, remedy=MARKUP)
    for model in ("base", "tuned"):
        story.emit("sample", step=0, model=model, index=0, prompt=MARKUP, answer=MARKUP, expected=MARKUP, correct=False)
    story.steps(1, 3)
    story.tell(State.SUCCEEDED)
    Artifact.objects.update(files=[{"name": MARKUP, "bytes": 4, "sha256": "2" * 64, "offset": 3}])
    record(Action.RUN_CREATED, team=things.cast.team, actor=things.cast.alice, name=MARKUP, detail={"a": MARKUP, MARKUP: [MARKUP]})
    assert poison() > 20
    client = things.cast.client(things.cast.alice)
    pages = shown = 0
    for name, route in ROUTES.items():
        if "GET" not in route.methods.split() or route.who == "any":
            continue
        answer = client.get(things.url(name), {"q": MARKUP, "find": MARKUP, "person": MARKUP, "run": str(things.run.pk)})
        if answer.status_code >= 300 or not answer["Content-Type"].startswith("text/html"):
            continue
        text = answer.content.decode()
        reader = Tags()
        reader.feed(text)
        assert reader.found == [], name
        assert "49{%" not in text, name
        pages += 1
        shown += "&lt;xss" in text
    assert pages > 40
    assert shown > 30


@pytest.mark.parametrize(
    "text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1+1", "\r=1", "\n=1", "＝1+1", "＋1", "－1", "＠SUM(1)"]
)
def test_a_formula_is_text_in_every_table_that_is_taken_away(text: str, things: Things) -> None:
    record(Action.RUN_CREATED, team=things.cast.team, actor=things.cast.bob, name=text)
    Run.objects.filter(pk=things.run.pk).update(name=text)
    client = things.cast.client(things.cast.alice)
    for name in ("accounts:audit-csv", "runs:compare-export", "experiments:export"):
        answer = client.get(things.url(name), {"run": str(things.run.pk)})
        body = b"".join(answer.streaming_content) if answer.streaming else answer.content
        cells = [cell for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) for cell in row]
        assert text not in cells, name
        assert not [cell for cell in cells if cell.startswith(tuple("=+@\t\r\n＝＋－＠"))], name
    assert harmless(text) == f"'{text}"


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What the site's log says, by the site's own formatter."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(LineFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    yield written
    logging.getLogger().removeHandler(handler)


def test_a_request_writes_one_line_and_no_secret(cast: Cast, lines: io.StringIO) -> None:
    client = cast.client(None)
    token = invite(team=cast.team, inviter=cast.alice, role=Role.VIEWER)
    client.get("/nothing%0aWARNING%20forged:%20line%0d%1b%5b2J%1b]0;title%07%e2%80%ae/")
    client.post(reverse("accounts:join", args=[token]), {"username": "a\nb"})
    client.get("/login/", headers={"Host": "evil\nWARNING forged"})
    cast.client(cast.bob).get(reverse("accounts:settings", args=["night"]), headers={"Authorization": "Bearer graft_" + "s" * 43})
    logging.getLogger("webapp.test").warning("name %s, redis://:word@host/0, graft_%s", "a\nERROR forged\x1b[31m", "t" * 43)
    try:
        raise ValueError("bad name\nERROR forged: by a name")
    except ValueError:
        logging.getLogger("webapp.test").exception("failed")
    text = lines.getvalue()
    written = text.splitlines()
    assert len(written) >= 5
    assert all(
        line.startswith(("WARNING django.", "ERROR django.", "WARNING webapp.test", "ERROR webapp.test", "    ")) for line in written
    ), written
    assert not [character for character in text if character != "\n" and not character.isprintable()]
    for secret in (token, "s" * 43, "t" * 43, ":word@"):
        assert secret not in text


def test_a_name_adds_no_header_to_a_mail(things: Things, settings: Any) -> None:
    settings.GRAFT_EMAIL = True
    cast, name = things.cast, "Night\r\nBcc: all@example.org\n\nshift"
    client = cast.client(cast.alice)
    client.post(reverse("accounts:rename-team", args=["night"]), {"name": name})
    cast.team.refresh_from_db()
    assert "\n" in cast.team.name
    assert client.post(reverse("accounts:invite", args=["night"]), {"role": "viewer", "email": "c@example.org"}).status_code == 302
    for email in ("c@example.org\nBcc: all@example.org", "a@example.org,b@example.org", "Bcc: all@example.org"):
        assert client.post(reverse("accounts:invite", args=["night"]), {"role": "viewer", "email": email}).status_code == 422

    facts = {**dict.fromkeys(("method", "model", "dataset", "owner", "message", "remedy", "failure_code"), name), "name": name}
    ending = RunEnding.objects.create(
        team=cast.team, run_id=things.run.pk, attempt=1, state="failed", owner=cast.alice, facts=facts, at=timezone.now()
    )
    User.objects.filter(pk=cast.alice.pk).update(email="alice@example.org")
    tell(ending.pk)
    deliver(Delivery.objects.get(user=cast.alice).pk)
    assert [(message.to, message.bcc, message.cc) for message in mail.outbox] == [
        (["c@example.org"], [], []),
        (["alice@example.org"], [], []),
    ]
    for message in mail.outbox:
        assert "Bcc" not in message.message()
        assert "\n" not in message.subject


# -- what is taken away ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x.html", "x.svg", 'a"; filename="b.html', "a\r\nContent-Type: text/html\r\n\r\n<script>", "../../x.html", "\u202egpj.exe"]
)
def test_a_file_is_a_download_whatever_it_is_called(name: str, things: Things) -> None:
    Artifact.objects.update(name=name, files=[{"name": name, "bytes": 4, "sha256": "2" * 64, "offset": 3}])
    client = things.cast.client(things.cast.alice)
    for route in ("artifacts:download", "artifacts:file", "artifacts:sha256", "runs:spec", "runs:curves", "runs:log"):
        answer = client.get(things.url(route))
        assert answer.status_code == 200
        # Checksums are shown: they are plain text, whatever the names.
        attached = "text/plain" if route == "artifacts:sha256" else "attachment"
        assert answer["Content-Type" if attached == "text/plain" else "Content-Disposition"].startswith(attached), route
        assert answer["X-Content-Type-Options"] == "nosniff"
        assert not answer["Content-Type"].startswith(("text/html", "image/svg", "text/xml", "application/xhtml", "text/javascript")), route
        for value in answer.headers.values():
            assert not {"\r", "\n"} & set(value)


def _sent(client: Client, url: str, **headers: str) -> int:
    return int(client.get(url, headers=headers).status_code)


def test_a_download_is_for_members_alone_and_for_one_object(things: Things) -> None:
    """There are no links that open by themselves: the session is asked each time, and the number of a file is within its artifact."""
    cast = things.cast
    url = things.url("artifacts:file")
    alice = cast.client(cast.alice)
    assert _sent(alice, url) == 200
    for number in ("1", "99", "9" * 30):
        assert _sent(alice, url.replace("/0/", f"/{number}/")) == 404
    assert [_sent(cast.client(person), url) for person in (None, cast.charlie, cast.ada)] == [302, 404, 404]
    Membership.objects.filter(user=cast.bob).delete()
    assert _sent(cast.client(cast.bob), url) == 404
    # A row that points elsewhere is a file that is not there.
    for path in ("../../../../../etc/passwd", "/etc/passwd", "artifacts/../../../../secret-key"):
        Artifact.objects.update(path=path, bytes=1, files=[])
        assert _sent(alice, things.url("artifacts:download")) == 404, path
