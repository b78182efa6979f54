"""Secrets: what lies in the database, in logs, on pages, in the environment and the arguments of other processes."""

from __future__ import annotations

import base64
import io
import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from allauth.mfa.totp.internal.auth import format_hotp_value, hotp_value, yield_hotp_counters_from_time
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client, TestCase
from django.urls import reverse

from tests.webapp.cast import PASSWORD, Cast
from webapp.accounts.models import Role
from webapp.accounts.scopes import Scope
from webapp.accounts.services.invite import invite
from webapp.accounts.services.tokens import make_token
from webapp.core import box
from webapp.notices.models import Webhook
from webapp.notices.services.signing import secret_of
from webapp.operate.up.commands import site_processes
from webapp.runs.child import RunChild
from webapp.runs.environment import child_environment
from webapp.settings.env import PROJECT
from webapp.work.models import OutboxMessage


def everything() -> str:
    """Each value of each row of each table, sessions opened."""
    with connection.cursor() as cursor:
        tables = connection.introspection.table_names(cursor)
        found = []
        for table in tables:
            cursor.execute(f'SELECT * FROM "{table}"')  # noqa: S608 - the name is the database's own
            found.append(repr(cursor.fetchall()))
    return "".join([*found, *(repr(session.get_decoded()) for session in Session.objects.all())])


def with_second_factor(client: Client) -> tuple[str, list[str]]:
    """Sets one up by the pages: its seed and the recovery codes."""
    client.post(reverse("account_reauthenticate"), {"password": PASSWORD})
    page = client.get(reverse("mfa_activate_totp")).content.decode()
    seed = re.search(r'id="secret" value="(\w+)"', page)
    assert seed is not None
    code = str(format_hotp_value(hotp_value(seed[1], next(iter(yield_hotp_counters_from_time())))))
    with TestCase.captureOnCommitCallbacks(execute=True):
        client.post(reverse("mfa_activate_totp"), {"code": code})
    return seed[1], re.findall(r"<li>(\d{8})</li>", client.get(reverse("mfa_view_recovery_codes")).content.decode())


def test_who_takes_the_database_has_no_secret(cast: Cast) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger().addHandler(handler)
    logging.getLogger().setLevel(logging.DEBUG)
    try:
        client = cast.client(None)
        client.post("/login/", {"login": "alice", "password": PASSWORD})
        seed, codes = with_second_factor(client)
        invitation = invite(team=cast.team, inviter=cast.alice, role=Role.VIEWER, email="c@example.org")
        _row, token = make_token(team=cast.team, user=cast.alice, name="nightly", scopes=[*Scope], days=None)
        client.post(reverse("notices:add-webhook", args=["night"]), {"url": "https://example.com/hook", "ended": "on"})
        webhook = secret_of(Webhook.objects.get())
        Client().get(reverse("accounts:join", args=[invitation]))
        Client().get(reverse("runs:series", args=[cast.team.pk]), headers={"Authorization": f"Bearer {token}"})
    finally:
        logging.getLogger().removeHandler(handler)
        logging.getLogger().setLevel(logging.WARNING)
    assert len(codes) == 10
    secrets = [PASSWORD, seed, *codes, invitation, token, webhook, webhook.removeprefix("whsec_")]
    secrets += [base64.b64encode(secret.encode()).decode() for secret in (seed, invitation, token)]
    stored, said = everything(), written.getvalue()
    assert [secret for secret in secrets if secret in stored] == []
    # A probable line of the log names the address that was asked for: the site's own formatter masks a link in it (test_words).
    assert [secret for secret in secrets if secret != invitation and secret in said] == []
    # Nor does a page show one again.
    for name in ("accounts:tokens", "accounts:members", "notices:notifications", "accounts:audit", "accounts:settings"):
        page = client.get(reverse(name, args=["night"])).content.decode()
        assert [secret for secret in (token, invitation, webhook, seed) if secret in page] == [], name


HIDDEN = {
    "GRAFT_SECRET_KEY": "word-of-the-site", "DATABASE_URL": "postgres://u:word-of-the-database@h/d", "REDIS_URL": "redis://:word-of-redis@h/0",
    "HF_TOKEN": "hf_wordofthehub", "GRAFT_EMAIL_URL": "smtp://u:word-of-mail@h", "GRAFT_ADMIN_PASSWORD": "word-of-the-admin",
    "AWS_SECRET_ACCESS_KEY": "word-of-the-cloud", "LD_PRELOAD": "/tmp/word.so", "PYTHONPATH": "/tmp/word", "PYTHONSTARTUP": "/tmp/word.py",
}  # fmt: skip
_SHOW = "import os; print(sorted(os.environ.items()))"


def test_the_processes_that_read_files_and_train_know_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HIDDEN.items():
        monkeypatch.setenv(name, value)
    for environment in (child_environment(tmp_path), box._environment(str(tmp_path), {})):
        shown = subprocess.run([sys.executable, "-S", "-c", _SHOW], env=environment, capture_output=True, text=True, check=True).stdout
        assert [value for value in HIDDEN.values() if value in shown] == []
        assert "word" not in shown


def test_no_secret_stands_in_an_argument_or_a_message(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in HIDDEN.items():
        monkeypatch.setenv(name, value)
    lines = [" ".join(process.command) for process in site_processes("127.0.0.1", 8000)]
    assert [line for line in lines if "word" in line] == []
    # What travels through the broker is the name of a task and an id.
    assert {field.name for field in OutboxMessage._meta.fields} == {"id", "task", "subject", "queue", "created_at", "published_at"}


def test_what_a_training_leaves_says_nothing_of_the_host(tmp_path: Path) -> None:
    child = RunChild(tmp_path / "attempt-1")
    child.folder.mkdir()
    line = f"Traceback: {child.folder}/spec.json and {PROJECT}/jobs/run.py \x1b[31mred\x1b]0;title\x07\x00 end"
    child.log.write_bytes(b"x" * 100_000 + b"\n" + line.encode())
    tail = child.log_tail()
    assert len(tail) <= 4096
    assert tail.endswith("Traceback: run/spec.json and graft/jobs/run.py red]0;title end")
    assert str(tmp_path) not in tail


def test_a_page_of_an_error_shows_no_variable(cast: Cast, settings: Any) -> None:
    assert settings.DEBUG is False
    client = cast.client(cast.alice)
    client.raise_request_exception = False
    for path in ("/nothing", f"/runs/{cast.team.pk}/", "/t/night/nothing/"):
        page = client.get(path, headers={"X-Word": "word-of-the-visitor"}).content.decode()
        assert not [word for word in ("Traceback", "urlconf", "URLconf", "DJANGO", "word-of-the-visitor", str(PROJECT)) if word in page]
