"""Every route of the site, walked as a stranger, a visitor, a viewer and an administrator without a team.

A route that is added without a line in `ROUTES` fails here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver, reverse

from tests.webapp.cast import LATER, Cast, make_cast
from webapp.accounts.models import ApiToken, Invitation, User
from webapp.catalog.models import BaseModel
from webapp.datasets.models import Dataset, DatasetVersion, Upload
from webapp.notices.models import Delivery, Webhook
from webapp.runs.models import Artifact, Experiment, Run, RunDraft, SavedView, Worker
from webapp.runs.services.specs import Recipe


@dataclass(frozen=True)
class Route:
    """`args`: names of `Things`; `methods`: what the route takes; `viewer`: those that a viewer may use; `who`: any | person | member;
    `own`: it is about a thing of one person, which is not there for others.
    """

    methods: str
    args: tuple[str, ...] = ()
    viewer: str = ""
    who: str = "member"
    own: bool = False


ROUTES: dict[str, Route] = {
    "healthz": Route("GET", who="any"),
    "readyz": Route("GET", who="any"),
    "account_login": Route("GET POST", who="any"),
    "account_inactive": Route("GET", who="any"),
    "account_reset_password": Route("GET POST", who="any"),
    "account_reset_password_done": Route("GET", who="any"),
    "account_reset_password_from_key": Route("GET POST", ("uidb36", "key"), who="any"),
    "account_reset_password_from_key_done": Route("GET", who="any"),
    "account_confirm_email": Route("GET", ("key",), who="any"),
    "account_email_verification_sent": Route("GET", who="any"),
    "accounts:join": Route("GET POST", ("token",), who="any"),
    "home": Route("GET", who="person"),
    "api": Route("GET HEAD", who="person"),
    "account_logout": Route("GET POST", who="any"),
    "account_reauthenticate": Route("GET POST", who="person"),
    "account_change_password": Route("GET POST", who="person"),
    "account_set_password": Route("GET POST", who="person"),
    "account_email": Route("GET POST", who="person"),
    "usersessions_list": Route("GET POST", who="person"),
    "mfa_index": Route("GET", who="person"),
    "mfa_authenticate": Route("GET POST", who="person"),
    "mfa_reauthenticate": Route("GET POST", who="person"),
    "mfa_activate_totp": Route("GET POST", who="person"),
    "mfa_deactivate_totp": Route("GET POST", who="person"),
    "mfa_view_recovery_codes": Route("GET", who="person"),
    "mfa_generate_recovery_codes": Route("GET POST", who="person"),
    "mfa_download_recovery_codes": Route("GET", who="person"),
    "accounts:profile": Route("GET POST", who="person"),
    "accounts:new-team": Route("GET POST", who="administrator"),
    "accounts:members": Route("GET", ("slug",), viewer="GET"),
    "accounts:invite": Route("POST", ("slug",)),
    "accounts:set-role": Route("POST", ("slug", "membership")),
    "accounts:remove": Route("GET POST", ("slug", "membership")),
    "accounts:hand-over": Route("GET POST", ("slug", "membership")),
    "accounts:renew-invitation": Route("POST", ("slug", "invitation")),
    "accounts:revoke-invitation": Route("POST", ("slug", "invitation")),
    "accounts:tokens": Route("GET POST", ("slug",), viewer="GET POST"),
    "accounts:revoke-token": Route("POST", ("slug", "api_token")),
    "accounts:audit": Route("GET", ("slug",)),
    "accounts:audit-csv": Route("GET", ("slug",)),
    "accounts:settings": Route("GET", ("slug",)),
    "accounts:rename-team": Route("POST", ("slug",)),
    "accounts:team-two-factor": Route("POST", ("slug",)),
    "accounts:delete-team": Route("POST", ("slug",)),
    "datasets:upload-create": Route("POST OPTIONS", ("slug",)),
    "datasets:upload": Route("HEAD PATCH DELETE", ("upload",)),
    "datasets:list": Route("GET", ("slug",), viewer="GET"),
    "datasets:new": Route("GET POST", ("slug",)),
    "datasets:detail": Route("GET", ("dataset",), viewer="GET"),
    "datasets:new-version": Route("GET POST", ("dataset",)),
    "datasets:version": Route("GET", ("version",), viewer="GET"),
    "datasets:preview": Route("POST", ("version",)),
    "datasets:validate": Route("POST", ("version",)),
    "datasets:skip-bad-rows": Route("POST", ("version",)),
    "datasets:describe": Route("GET POST", ("dataset",)),
    "datasets:problems": Route("GET", ("version",), viewer="GET"),
    "datasets:problems-csv": Route("GET", ("version",), viewer="GET"),
    "datasets:copies": Route("GET", ("version",), viewer="GET"),
    "datasets:copies-csv": Route("GET", ("version",), viewer="GET"),
    "datasets:balance": Route("GET", ("version",), viewer="GET"),
    "datasets:examine": Route("POST", ("version",)),
    "datasets:lineage": Route("GET", ("version",), viewer="GET"),
    "checks:rows": Route("GET", ("version",), viewer="GET"),
    "checks:lengths": Route("GET", ("version",), viewer="GET"),
    "checks:measure": Route("POST", ("version",)),
    "catalog:list": Route("GET", ("slug",), viewer="GET"),
    "catalog:add": Route("GET POST", ("slug", "way")),
    "catalog:detail": Route("GET", ("model",), viewer="GET"),
    "catalog:retry": Route("POST", ("model",)),
    "catalog:licence": Route("POST", ("model",)),
    "catalog:archive": Route("POST", ("model",)),
    "catalog:delete": Route("POST", ("model",)),
    "runs:list": Route("GET", ("slug",), viewer="GET"),
    "runs:bulk": Route("POST", ("slug",)),
    "runs:save-view": Route("POST", ("slug",), viewer="POST"),
    "runs:delete-view": Route("POST", ("slug", "view"), own=True),
    "runs:new": Route("GET POST", ("slug",)),
    "runs:whole": Route("GET POST", ("slug",)),
    "runs:drafts": Route("GET", ("slug",)),
    "runs:step": Route("GET POST", ("slug", "draft", "step")),
    "runs:estimate": Route("POST", ("slug", "draft")),
    "runs:discard-draft": Route("POST", ("slug", "draft")),
    "runs:combine": Route("GET POST", ("slug",)),
    "runs:advice": Route("POST", ("slug",)),
    "runs:trained": Route("POST", ("slug",)),
    "runs:analyse": Route("POST", ("slug",)),
    "runs:compare": Route("GET", ("slug",), viewer="GET"),
    "runs:compare-export": Route("GET", ("slug", "form"), viewer="GET"),
    "runs:detail": Route("GET", ("run",), viewer="GET"),
    "runs:part": Route("GET", ("run", "part"), viewer="GET"),
    "runs:series": Route("GET", ("run",), viewer="GET"),
    "runs:curves": Route("GET", ("run",), viewer="GET"),
    "runs:log": Route("GET", ("run",), viewer="GET"),
    "runs:spec": Route("GET", ("run",), viewer="GET"),
    "runs:blocks": Route("GET", ("run",), viewer="GET"),
    "runs:overlap": Route("GET", ("run",), viewer="GET"),
    "runs:finish": Route("POST", ("run",)),
    "runs:extend": Route("GET POST", ("run",)),
    "runs:pause": Route("POST", ("run",)),
    "runs:resume": Route("POST", ("run",)),
    "runs:cancel": Route("POST", ("run",)),
    "runs:retry": Route("POST", ("run",)),
    "runs:delete": Route("POST", ("run",)),
    "runs:workers": Route("GET", ("slug",), viewer="GET"),
    "runs:drain": Route("POST", ("slug", "worker"), who="administrator"),
    "runs:priority": Route("POST", ("slug", "run")),
    "runs:move": Route("POST", ("slug", "run")),
    "quotas:usage": Route("GET", ("slug",), viewer="GET"),
    "quotas:site": Route("GET", who="administrator"),
    "quotas:edit": Route("GET POST", ("slug",), who="administrator"),
    "notices:notifications": Route("GET", ("slug",), viewer="GET"),
    "notices:feed": Route("GET", ("slug",), viewer="GET"),
    "notices:preferences": Route("POST", ("slug",), viewer="POST"),
    "notices:add-webhook": Route("POST", ("slug",)),
    "notices:switch-webhook": Route("POST", ("slug", "webhook")),
    "notices:renew-secret": Route("POST", ("slug", "webhook")),
    "notices:test-webhook": Route("POST", ("slug", "webhook")),
    "notices:delete-webhook": Route("POST", ("slug", "webhook")),
    "notices:send-again": Route("POST", ("slug", "delivery")),
    "experiments:list": Route("GET", ("slug",), viewer="GET"),
    "experiments:new": Route("GET POST", ("slug",)),
    "experiments:detail": Route("GET", ("experiment",), viewer="GET"),
    "experiments:export": Route("GET", ("experiment", "form"), viewer="GET"),
    "experiments:add": Route("GET POST", ("experiment",)),
    "experiments:stop": Route("POST", ("experiment",)),
    "experiments:retry": Route("POST", ("experiment",)),
    "experiments:delete": Route("POST", ("experiment",)),
    "artifacts:list": Route("GET", ("slug",), viewer="GET"),
    "artifacts:detail": Route("GET", ("artifact",), viewer="GET"),
    "artifacts:use-as-base": Route("POST", ("artifact",)),
    "artifacts:delete": Route("POST", ("artifact",)),
    "artifacts:download": Route("GET HEAD", ("artifact",), viewer="GET HEAD"),
    "artifacts:file": Route("GET HEAD", ("artifact", "number"), viewer="GET HEAD"),
    "artifacts:sha256": Route("GET HEAD", ("artifact",), viewer="GET HEAD"),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
BELONGING = sorted(name for name, route in ROUTES.items() if route.who == "member")


def names_of(patterns: list[Any], prefix: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from names_of(pattern.url_patterns, f"{prefix}{pattern.namespace}:" if pattern.namespace else prefix)
        elif isinstance(pattern, URLPattern):
            assert pattern.name, f"{pattern} has no name"
            yield f"{prefix}{pattern.name}"


@dataclass(frozen=True)
class Things:
    """One of each, all of Alice's team."""

    cast: Cast
    values: dict[str, Any]
    run: Run

    def url(self, name: str) -> str:
        return reverse(name, args=[self.values[argument] for argument in ROUTES[name].args])


# What an experiment of one run keeps.
LAUNCHED = {
    "axes": {"methods": ["lora"], "ranks": [], "rates": [], "seeds": [0], "scale_alpha": False},
    "spec": {"dataset_version": "", "base_model": "", "task": "causal_lm", "validation_share": 0.0, "training": {}, "evaluation": {},
             "export": {}},
}  # fmt: skip


def make_things(cast: Cast) -> Things:
    def upload(name: str) -> Upload:
        row = Upload.objects.create(team=cast.team, created_by=cast.alice, filename=name, bytes_total=9, expires_at=LATER)
        row.path.parent.mkdir(parents=True, exist_ok=True)
        row.path.write_bytes(b"")
        return row

    dataset = Dataset.objects.create(team=cast.team, name="Tickets", created_by=cast.alice)
    version = DatasetVersion.objects.create(
        dataset=dataset, number=1, state="ready", train_upload=upload("train.csv"), created_by=cast.alice,
        manifest={"train": {"file": "train.jsonl", "rows": 3, "bytes": 30, "sha256": "0" * 64}},
    )  # fmt: skip
    model = BaseModel.objects.create(team=cast.team, name="Tiny", source="hub", repository="a/tiny", state="ready", created_by=cast.alice)
    run = Run.objects.create(
        team=cast.team, name="first", created_by=cast.alice, dataset_version=version, base_model=model, method="lora",
        spec=Recipe(name="first", dataset_version=version, base_model=model, method="lora").spec().to_json(),
        state="succeeded", attempt=1, lease_expires_at=LATER, queued_at=LATER,
    )  # fmt: skip
    (run.attempt_folder(1) / "artifacts").mkdir(parents=True)
    (run.attempt_folder(1) / "artifacts/first.zip").write_bytes(b"0123456789")
    artifact = Artifact.objects.create(
        run=run, attempt=1, kind="adapter", name="first.zip", path="artifacts/first.zip", bytes=10, sha256="1" * 64,
        files=[{"name": "a.json", "bytes": 4, "sha256": "2" * 64, "offset": 3}],
    )  # fmt: skip
    experiment = Experiment.objects.create(team=cast.team, name="Grid", created_by=cast.alice, **LAUNCHED)
    membership = cast.team.memberships.get(user=cast.bob)
    webhook = Webhook.objects.create(team=cast.team, url="https://example.com/hook", created_by=cast.alice)
    values = {
        "slug": cast.team.slug, "membership": membership.pk, "upload": upload("more.csv").pk, "dataset": dataset.pk, "version": version.pk,
        "model": model.pk, "run": run.pk, "artifact": artifact.pk, "number": 0, "part": "header", "form": "csv", "way": "hub",
        "draft": RunDraft.objects.create(team=cast.team, user=cast.alice).pk, "step": "settings",
        "view": SavedView.objects.create(team=cast.team, user=cast.alice, name="mine").pk,
        "experiment": experiment.pk, "token": "no-such-token",
        "invitation": Invitation.objects.create(team=cast.team, token_sha256="3" * 64, created_by=cast.alice, expires_at=LATER).pk,
        "api_token": ApiToken.objects.create(team=cast.team, user=cast.alice, name="nightly", prefix="graft_abc", sha256="4" * 64).pk,
        "uidb36": "1", "key": "no-such-key", "webhook": webhook.pk,
        "delivery": Delivery.objects.create(webhook=webhook, subject="test", body="{}", state="sent", next_at=LATER).pk,
        "worker": Worker.objects.create(name="train0@host", queue="train", seen_at=LATER).pk,
    }  # fmt: skip
    return Things(cast, values, run)


@pytest.fixture
def things(cast: Cast) -> Things:
    return make_things(cast)


def ask(client: Client, method: str, url: str) -> Any:
    return client.generic(method, url, headers={"Tus-Resumable": "1.0.0"})


def test_the_table_names_every_route() -> None:
    """Those of the API are walked by its own document (`tests/webapp/api/test_core.py`)."""
    assert sorted(name for name in names_of(get_resolver().url_patterns) if not name.startswith("v1:")) == sorted(ROUTES)


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_a_visitor_is_sent_to_the_login(name: str, things: Things) -> None:
    client = things.cast.client(None)
    for method in ROUTES[name].methods.split():
        response = ask(client, method, things.url(name))
        to_login = response.status_code == 302 and response["Location"].startswith(reverse("account_login"))
        assert to_login == (ROUTES[name].who != "any" or name == "account_logout"), (method, response.status_code)


@pytest.mark.parametrize("person", ["charlie", "ada"])
@pytest.mark.parametrize("name", BELONGING)
def test_a_stranger_learns_nothing_not_even_an_administrator(name: str, person: str, things: Things) -> None:
    client = things.cast.client(getattr(things.cast, person))
    for method in ROUTES[name].methods.split():
        assert ask(client, method, things.url(name)).status_code == 404, method


@pytest.mark.parametrize("name", BELONGING)
def test_a_viewer_reads_and_changes_nothing(name: str, things: Things) -> None:
    client = things.cast.client(things.cast.vera)
    for method in ROUTES[name].methods.split():
        # An empty form is refused at its fields, behind the door, or above the page it came from.
        expected = (200, 302, 422) if method in ROUTES[name].viewer.split() else (404,) if ROUTES[name].own else (403,)
        assert ask(client, method, things.url(name)).status_code in expected, method


@pytest.mark.parametrize("name", BELONGING)
def test_no_route_takes_a_method_that_the_table_does_not_name(name: str, things: Things) -> None:
    client = things.cast.client(things.cast.alice)
    for method in set(METHODS) - set(ROUTES[name].methods.split()):
        assert ask(client, method, things.url(name)).status_code == 405, method


@pytest.mark.parametrize("name", BELONGING)
def test_an_owner_gets_through_every_door(name: str, things: Things) -> None:
    client = things.cast.client(things.cast.alice)
    for method in ROUTES[name].methods.split():
        assert ask(client, method, things.url(name)).status_code not in (403, 404, 405, 500), method


def test_only_an_administrator_makes_teams(cast: Cast) -> None:
    url = reverse("accounts:new-team")
    assert cast.client(cast.alice).get(url).status_code == cast.client(cast.alice).post(url, {"name": "Mine"}).status_code == 403
    assert cast.client(cast.ada).get(url).status_code == 200
    assert not User.objects.get(username="alice").teams.filter(name="Mine").exists()


@pytest.mark.parametrize("odd", ["..%2f", "%2e%2e%2f", "..%252f", "%00", "....//", "file:%2f%2f%2fetc%2fpasswd"])
def test_paths_in_urls_lead_nowhere(odd: str, things: Things) -> None:
    client = things.cast.client(things.cast.alice)
    for name in BELONGING:
        url = things.url(name)
        for part in ROUTES[name].args:
            assert ask(client, "GET", url.replace(str(things.values[part]), odd, 1)).status_code in (404, 405), (name, part)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("person", "enters"), [(None, False), ("charlie", False), ("ada", False), ("vera", True), ("bob", True)])
async def test_the_socket_of_a_run(person: str | None, enters: bool, transactional_db: None, settings: Any, tmp_path: Any) -> None:
    from webapp.asgi import application

    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    things = await sync_to_async(lambda: make_things(make_cast()))()
    client = await sync_to_async(things.cast.client)(getattr(things.cast, person) if person else None)
    cookies = "; ".join(f"{key}={morsel.value}" for key, morsel in client.cookies.items())
    headers = [(b"host", b"localhost"), (b"origin", b"http://localhost"), (b"cookie", cookies.encode())]
    scope = {"type": "websocket", "path": f"/ws/runs/{things.run.pk}/", "query_string": b"", "headers": headers, "subprotocols": []}
    socket = ApplicationCommunicator(application, scope)
    await socket.send_input({"type": "websocket.connect"})
    answer = await socket.receive_output(timeout=10)
    if enters:
        assert answer["type"] == "websocket.accept"
        frame = json.loads((await socket.receive_output(timeout=10))["text"])
        assert frame["type"] == "run"
        assert frame["run"]["id"] == str(things.run.pk)
    else:
        assert answer == {"type": "websocket.close", "code": 4404}
    await socket.send_input({"type": "websocket.disconnect", "code": 1000})
    await socket.wait(timeout=10)
