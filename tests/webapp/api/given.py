"""A program that asks /v1 with a token."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from django.test import Client

from webapp.accounts.models import Team, User
from webapp.accounts.scopes import Scope
from webapp.accounts.services.tokens import make_token
from webapp.files.models import File


@dataclass
class Program:
    """`ask("GET", "files")` gives the response; its JSON is `.json()`."""

    secret: str
    client: Client = field(default_factory=Client)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        more = {"headers": {"Authorization": f"Bearer {self.secret}", **{name.replace("_", "-"): value for name, value in headers.items()}}}
        if body is None:
            return self.client.generic(method, f"/v1/{path}", content_type="application/json", **more)
        return self.client.generic(method, f"/v1/{path}", json.dumps(body), content_type="application/json", **more)

    def get(self, path: str, **query: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.secret}"}
        return self.client.get(f"/v1/{path}", query, headers=headers)


def program(team: Team, user: User, scopes: Sequence[Scope] = tuple(Scope)) -> Program:
    _token, secret = make_token(team=team, user=user, name="nightly", scopes=list(scopes), days=None)
    return Program(secret)


def id_of(file: File) -> str:
    return f"file-{file.pk.hex}"
