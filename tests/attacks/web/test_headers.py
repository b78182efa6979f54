"""What every answer tells the browser: what may run, who may show it in a frame, what a file is; cookies, Host and TLS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest
from django.urls import reverse

from tests.attacks.web.asking import Answer, ask, cookie_of
from tests.webapp.cast import PASSWORD, Cast, make_cast
from tests.webapp.test_every_url import ROUTES, Things, make_things
from webapp.datasets import views as dataset_views
from webapp.settings.env import PROJECT

FORM = {"method": "POST", "content_type": "application/x-www-form-urlencoded"}


def directives(policy: str) -> dict[str, list[str]]:
    return {words[0]: words[1:] for part in policy.split(";") if (words := part.split())}


def check(answer: Answer) -> None:
    """Nothing runs that is not ours, nobody shows it in a frame, and it is what it says it is."""
    headers = answer.headers
    policy = directives(headers["content-security-policy"])
    assert "sandbox" in policy or (policy["default-src"], policy["frame-ancestors"]) == (["'none'"], ["'none'"])
    loose = {"'unsafe-inline'", "'unsafe-eval'", "'strict-dynamic'", "*", "data:", "https:", "http:"}
    assert not loose & {*policy.get("script-src", ()), *policy.get("style-src", ()), *policy.get("connect-src", ())}
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert not {"server", "x-powered-by", "access-control-allow-origin"} & headers.keys()


@pytest.mark.django_db(transaction=True)
def test_every_kind_of_answer(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    things = make_things(make_cast())
    alice, vera = ({"cookie": cookie_of(things.cast.client(person))} for person in (things.cast.alice, things.cast.vera))

    def broken(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("word-of-the-house")

    monkeypatch.setattr(dataset_views, "render", broken)
    zipped = things.url("artifacts:download")
    cases: list[tuple[int, str, dict[str, Any]]] = [
        (200, "/login/", {}),
        (200, "/healthz", {}),
        (503, "/readyz", {}),
        (200, things.url("runs:list"), alice),
        (200, zipped, alice),
        (200, things.url("runs:spec"), alice),
        (200, things.url("runs:series"), alice),
        (200, things.url("accounts:audit-csv"), alice),
        (206, zipped, {**alice, "range": "bytes=1-2"}),
        (304, zipped, {**alice, "if_none_match": f'"{"1" * 64}"'}),
        (416, zipped, {**alice, "range": "bytes=99-"}),
        (302, "/", {}),
        (400, "/login/", {"host": "evil.example"}),
        (400, "/login/", {"method": "POST", "content_length": "abc"}),
        (400, "/login/", {**FORM, "body": b"&".join(b"a%d=1" % number for number in range(501)), "cookie": "csrftoken=" + "x" * 32}),
        (403, things.url("accounts:settings"), vera),
        (403, "/login/", {**FORM, "body": b"login=a"}),
        (404, "/nothing/here/", alice),
        (404, "/static/nothing.js", {}),
        (405, things.url("runs:cancel"), alice),
        (413, "/login/", {"method": "POST", "content_length": "99999999"}),
        (500, things.url("datasets:list"), alice),
    ]
    for status, path, options in cases:
        answer = asyncio.run(ask(path, **options))
        assert answer.status == status, (path, answer.status)
        check(answer)
        # Not even of a fault does an answer say more than that there was one.
        assert not [word for word in (b"word-of-the-house", b"Traceback", b"webapp/", str(PROJECT).encode()) if word in answer.body], path


class Inline(HTMLParser):
    """Finds what a strict policy would refuse, or what would need a loose one."""

    def __init__(self, nonces: list[str]) -> None:
        super().__init__()
        self.nonces, self.found = nonces, list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        own = dict(attrs)
        self.found += [f"<{tag} {name}>" for name in own if name.startswith("on") or name in ("style", "srcdoc")]
        self.found += [
            f"<{tag} {name}={value}>" for name, value in attrs if (value or "").strip().lower().startswith(("javascript:", "data:text"))
        ]
        if tag in ("script", "style") and not (own.get("src") or own.get("nonce") in self.nonces or own.get("type") == "application/json"):
            self.found.append(f"<{tag}>")
        if tag in ("iframe", "object", "embed", "base"):
            self.found.append(f"<{tag}>")
        if tag == "form" and not (own.get("action") or "/").startswith(("/", "?", "#")):
            self.found.append(f"<form {own.get('action')}>")


def test_no_page_has_anything_inline(things: Things) -> None:
    clients = {"member": things.cast.client(things.cast.alice), "any": things.cast.client(None)}
    seen: set[str] = set()
    pages = 0
    for name, route in ROUTES.items():
        if "GET" not in route.methods.split():
            continue
        client = clients.get(route.who, clients["member"])
        response = client.get(things.url(name))
        if not response["Content-Type"].startswith("text/html") or response.status_code != 200:
            continue
        pages += 1
        policy = directives(response["Content-Security-Policy"])
        nonces = [word[7:-1] for word in policy["script-src"] if word.startswith("'nonce-")]
        assert not seen & set(nonces), name
        seen |= set(nonces)
        reader = Inline(nonces)
        reader.feed(response.content.decode())
        assert reader.found == [], name
    assert pages > 50


def test_cookies_are_for_us_alone(cast: Cast) -> None:
    client = cast.client(None)
    client.get("/login/")
    response = client.post("/login/", {"login": "alice", "password": PASSWORD})
    session, token = response.cookies["sessionid"], response.cookies["csrftoken"]
    assert (session["httponly"], session["samesite"], session["domain"], session["path"]) == (True, "Lax", "", "/")
    assert (token["samesite"], token["domain"]) == ("Lax", "")


# Asked over a connection that the proxy says was TLS, and over one that was not.
_BEHIND_TLS = """
import json, django
django.setup()
from django.test import Client
from django.conf import settings
# The files themselves are collected when a site is installed.
settings.STORAGES = {**settings.STORAGES, "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}
plain = Client().get("/login/", HTTP_HOST="localhost")
safe = Client(headers={"X-Forwarded-Proto": "https"}).get("/login/", HTTP_HOST="localhost")
token = safe.cookies[settings.CSRF_COOKIE_NAME]
print(json.dumps({
    "plain": [plain.status_code, plain.get("Location")], "hsts": safe["Strict-Transport-Security"],
    "names": [settings.SESSION_COOKIE_NAME, settings.CSRF_COOKIE_NAME],
    "secure": [settings.SESSION_COOKIE_SECURE, token["secure"], token["path"], token["domain"]],
}))
"""


def test_behind_tls_nothing_goes_in_the_clear(tmp_path: Path) -> None:
    environment = {
        **os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings.base", "GRAFT_BEHIND_TLS": "true", "GRAFT_VAR": str(tmp_path),
        "GRAFT_SECRET_KEY": "k" * 50, "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _BEHIND_TLS], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "plain": [301, "https://localhost/login/"],
        "hsts": "max-age=31536000",
        "names": ["__Host-sessionid", "__Host-csrftoken"],
        "secure": [True, True, "/", ""],
    }


SERVERS = [
    (["uvicorn", "webapp.asgi:application", "--port", "0"], ""),
    (["celery", "-A", "webapp", "worker", "-Q", "short"], "change-me-please-change-me-please-change"),
]


@pytest.mark.parametrize(("program", "key"), SERVERS)
def test_a_site_with_a_key_that_everybody_knows_does_not_start(program: list[str], key: str, tmp_path: Path) -> None:
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "webapp.settings.base", "GRAFT_VAR": str(tmp_path), "GRAFT_SECRET_KEY": key}
    environment |= {"REDIS_URL": "redis://127.0.0.1:1/0", "DATABASE_URL": f"sqlite:///{tmp_path}/db.sqlite3"}
    done = subprocess.run(
        [sys.executable, "-m", *program], cwd=PROJECT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode != 0
    assert "secret key" in done.stderr + done.stdout


def test_another_name_for_the_host_is_not_believed(cast: Cast) -> None:
    for host in ("evil.example", "localhost.evil.example", "localhost:80@evil.example", "localhost#evil", "a b", "127.0.0.1.evil.example"):
        assert cast.client(None).get("/login/", HTTP_HOST=host).status_code == 400, host
    believed = cast.client(None).get("/", HTTP_HOST="localhost", HTTP_X_FORWARDED_HOST="evil.example", HTTP_FORWARDED="host=evil.example")
    assert believed["Location"] == "/login/?next=/"
    response = cast.client(cast.alice).post(
        reverse("accounts:invite", args=["night"]), {"role": "viewer"}, HTTP_HOST="localhost", HTTP_X_FORWARDED_HOST="evil.example"
    )
    assert b"http://localhost/join/" in response.content
    assert b"evil.example" not in response.content
