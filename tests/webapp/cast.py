"""The people of the tests: Alice owns a team, Max maintains it, Bob is a member, Vera a viewer; Charlie owns another team; Ada, an
administrator of the site, is in no team."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.test import AsyncClient, Client

from webapp.accounts.models import Membership, Role, Team, User

LATER = datetime(2100, 1, 1, tzinfo=UTC)
PASSWORD = "a-long-enough-passphrase"


@dataclass(frozen=True)
class Cast:
    alice: User
    max: User
    bob: User
    vera: User
    charlie: User
    ada: User
    team: Team
    other_team: Team

    def client(self, person: User | None, **options: Any) -> Client:
        """A browser with the person signed in; None is a visitor."""
        client = Client(**options)
        if person is not None:
            client.force_login(person)
        return client

    async def async_client(self, person: User) -> AsyncClient:
        client = AsyncClient()
        await client.aforce_login(person)
        return client


def make_cast() -> Cast:
    names = ("alice", "max", "bob", "vera", "charlie", "ada")
    people = {name: User.objects.create_user(username=name, password=PASSWORD, is_superuser=name == "ada") for name in names}
    team, other = Team.objects.create(name="Night shift", slug="night"), Team.objects.create(name="Others", slug="others")
    roles = {"alice": Role.OWNER, "max": Role.MAINTAINER, "bob": Role.MEMBER, "vera": Role.VIEWER}
    for name, role in roles.items():
        Membership.objects.create(team=team, user=people[name], role=role)
    Membership.objects.create(team=other, user=people["charlie"], role=Role.OWNER)
    return Cast(**people, team=team, other_team=other)
