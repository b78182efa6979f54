"""The door of a team: which role may do what, and the checks that every other app builds on.

A stranger learns nothing, not even that a thing exists: 404. A member without the right learns so: 403. Being an administrator
of the site opens no team; administrators make teams and see their own, like anyone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar
from uuid import UUID

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import PermissionDenied
from django.db.models import Exists, Model, OuterRef, Q, QuerySet
from django.http import Http404, HttpRequest

from webapp.accounts.models import Membership, Role, Team, User

Person = User | AnonymousUser
_Row = TypeVar("_Row", bound=Model)

# view: read pages and download; launch: upload data, add models, start runs; control: pause, cancel and retry runs;
# manage: invite and remove people, change roles; own: make owners. Each role may do what those before it may.
ACTIONS: dict[Role, frozenset[str]] = {
    Role.VIEWER: frozenset({"view"}),
    Role.MEMBER: frozenset({"view", "launch", "control"}),
    Role.MAINTAINER: frozenset({"view", "launch", "control", "manage"}),
    Role.OWNER: frozenset({"view", "launch", "control", "manage", "own"}),
}
_ORDER = list(ACTIONS)
SECOND_FACTORS = (Authenticator.Type.TOTP, Authenticator.Type.WEBAUTHN)


def rank(role: Role | str) -> int:
    """The place of a role in the order from least (0) to most."""
    return _ORDER.index(Role(role))


def in_force(rows: QuerySet[Membership]) -> QuerySet[Membership]:
    """Those memberships that open something now: in a team that requires a second factor, those of people who have one."""
    second = Authenticator.objects.filter(user=OuterRef("user"), type__in=SECOND_FACTORS)
    return rows.filter(Q(team__require_two_factor=False) | Exists(second), user__is_active=True)


def memberships(user: Person) -> QuerySet[Membership]:
    """The memberships by which the person may do anything now; those of an API token end at its team."""
    if not isinstance(user, User) or not user.is_active:
        return Membership.objects.none()
    rows = in_force(Membership.objects.filter(user=user))
    return rows if user.only_team is None else rows.filter(team=user.only_team)


def needs_two_factor(user: Person) -> bool:
    """Whether the person is in a team that opens to them only when they have a second factor, which they have not."""
    if not isinstance(user, User):
        return False
    rows = Membership.objects.filter(user=user, team__require_two_factor=True)
    return rows.exists() and not Authenticator.objects.filter(user=user, type__in=SECOND_FACTORS).exists()


def role_of(user: Person, team: Team) -> Role | None:
    """The role of a person in a team, None for a stranger."""
    role = memberships(user).filter(team=team).values_list("role", flat=True).first()
    return None if role is None else Role(role)


def roles(people: Iterable[Person], team_ids: Iterable[UUID]) -> dict[tuple[UUID, UUID], Role]:
    """What `role_of` says of each of these people in each of the teams, by the ids of both; nothing where somebody is a stranger."""
    known = {user.pk: user for user in people if isinstance(user, User) and user.is_active}
    rows = in_force(Membership.objects.filter(user__in=known, team__in=set(team_ids))).values_list("user", "team", "role")
    return {(user, team): Role(role) for user, team, role in rows if known[user].only_team in (None, team)}


def can(user: Person, team: Team, action: str) -> bool:
    """Whether the person may do this in the team."""
    role = role_of(user, team)
    return role is not None and action in ACTIONS[role]


def require(user: Person, team: Team, action: str) -> Role:
    """The person's role, where it allows the action. Raises `Http404` for a stranger, `PermissionDenied` for a lesser role."""
    role = role_of(user, team)
    if role is None:
        raise Http404
    if action not in ACTIONS[role]:
        raise PermissionDenied(f"Your role in this team ({role.label}) does not allow this.")
    return role


def get_team(user: Person, slug: str, action: str = "view") -> Team:
    """The team of a URL, through the door. Raises `Http404` for a stranger, `PermissionDenied` for a lesser role."""
    team = Team.objects.filter(slug=slug).first()
    if team is None:
        raise Http404
    require(user, team, action)
    return team


def signed_in(request: HttpRequest) -> User:
    """The person of a request that has passed `LoginRequiredMiddleware`. Raises `PermissionDenied` for anybody else."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return request.user


def teams_of(user: Person) -> QuerySet[Team]:
    """The teams of a person, by name."""
    return Team.objects.filter(memberships__in=memberships(user)).order_by("name")


def visible_to(user: Person, rows: QuerySet[_Row], *, team: str = "team", shared: bool = False) -> QuerySet[_Row]:
    """Those of `rows` that belong to a team of the person; `team` is the path to it. `shared` adds the rows of the site, without a team."""
    if not isinstance(user, User) or not user.is_active:
        return rows.none()
    mine: dict[str, Any] = {f"{team}__in": memberships(user).values("team")}
    return rows.filter(Q(**mine) | Q(**{f"{team}__isnull": True})) if shared else rows.filter(**mine)


def enter(request: HttpRequest, team: Team) -> None:
    """Makes `team` the current one of this page, and the one that `/` leads to next time."""
    request.team = team  # type: ignore[attr-defined]
    if request.session.get("team") != str(team.id):
        request.session["team"] = str(team.id)


def current_team(request: HttpRequest) -> Team | None:
    """The team of the page: the one that its view has entered, else that of the URL, else the last used, else the first."""
    entered: Team | None = getattr(request, "team", None)
    if entered is not None:
        return entered
    teams = list(teams_of(request.user))
    match = request.resolver_match
    slug = match.kwargs.get("slug") if match else None
    last = request.session.get("team")
    preferred = [team for team in teams if team.slug == slug] or [team for team in teams if str(team.id) == last] or teams
    return preferred[0] if preferred else None
