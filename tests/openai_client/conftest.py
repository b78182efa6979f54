"""A real site (redis-server, dispatcher, workers for short tasks and trainings, uvicorn) and the official client with a team's token."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings
from openai import OpenAI

from tests.browser.conftest import LiveSite, start_web
from tests.flow.site import running_site
from tests.tiny import make_tiny_model
from tests.webapp.cast import Cast, make_cast
from tests.webapp.files.given import CHAT
from webapp.accounts.scopes import Scope
from webapp.accounts.services.tokens import make_token
from webapp.catalog.models import BaseModel

MODEL = "acme/tiny"
# Ten rows, whose loss falls within a few steps.
ROWS = "".join(json.dumps(CHAT) + "\n" for _ in range(12)).encode()
QUICK = {
    "n_epochs": 2, "batch_size": 4, "method": "lora", "rank": 4, "precision": "float32", "checkpoint_every_steps": 2,
    "evaluation": {"generate": False, "samples": 0, "retention": False}, "export": {"merge": "none"},
}  # fmt: skip
LONG = {**QUICK, "n_epochs": "auto", "training": {"epochs": 1000.0}}


@dataclass(frozen=True)
class World:
    """A site with a team that has a ready base model."""

    site: LiveSite
    cast: Cast
    base: BaseModel

    def key(self, *scopes: Scope, person: str = "bob") -> str:
        user = getattr(self.cast, person)
        team = self.cast.other_team if person == "charlie" else self.cast.team
        return make_token(team=team, user=user, name="client", scopes=list(scopes or Scope), days=None)[1]

    def client(self, *scopes: Scope, person: str = "bob", **more: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.site.url}/v1", api_key=self.key(*scopes, person=person), **{"max_retries": 0, **more})


@pytest.fixture(scope="module")
def module_site(django_db_setup: None) -> Iterator[LiveSite]:
    """The processes, which live for a module; each test has a database of its own in them."""
    with override_settings(), running_site(settings) as site:
        start_web(site)  # type: ignore[arg-type]
        yield site  # type: ignore[misc]


@pytest.fixture
def world(module_site: LiveSite, transactional_db: None) -> Iterator[World]:
    module_site.start_dispatcher()
    module_site.start_worker("short0", queue="short")
    base = BaseModel.objects.create(name="Tiny", source="hub", repository=MODEL, state="ready", revision="1", licence="Apache-2.0")
    make_tiny_model(base.folder)
    yield World(module_site, make_cast(), base)
    for name in [name for name in module_site.processes if name not in ("redis", "web")]:
        module_site.kill(name)
        del module_site.processes[name]


@pytest.fixture
def client(world: World) -> OpenAI:
    return world.client()


def sent(client: OpenAI, body: bytes = ROWS, *, name: str = "marv.jsonl") -> Any:
    """The file, once it is processed or refused."""
    file = client.files.create(file=(name, io.BytesIO(body)), purpose="fine-tune")
    return client.files.wait_for_processing(file.id, poll_interval=0.1, max_wait_seconds=60)
