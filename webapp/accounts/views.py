"""Pages of people and teams: the front door, the members, an invitation."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth import login
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import current_team, enter, get_team, rank, require, signed_in
from webapp.accounts.forms import RoleForm, SignUpForm, TeamForm
from webapp.accounts.models import Role, Team, User
from webapp.accounts.services.create_team import create_team
from webapp.accounts.services.invite import invite
from webapp.accounts.services.join import join, open_invitation, sign_up
from webapp.accounts.services.members import change_role, remove_member


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """To the runs of the last used team; a person without a team is told how to get into one."""
    team = current_team(request)
    return redirect("runs:list", team.slug) if team else render(request, "accounts/no_team.html")


@require_http_methods(["GET", "POST"])
def new_team(request: HttpRequest) -> HttpResponse:
    """The form of a new team, for administrators of the site."""
    user = signed_in(request)
    if not user.is_superuser:
        raise PermissionDenied(_("Only an administrator of the site makes teams."))
    form = TeamForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            return redirect("accounts:members", create_team(creator=user, name=form.cleaned_data["name"]).slug)
        except UserError as error:
            form.add_error("name", f"{error.message} {error.remedy}")
    return render(request, "accounts/new_team.html", {"form": form}, status=422 if form.errors else 200)


@require_GET
def members(request: HttpRequest, slug: str) -> HttpResponse:
    """The members, their roles, and the form of an invitation."""
    return _members_page(request, get_team(request.user, slug))


@require_POST
def invite_member(request: HttpRequest, slug: str) -> HttpResponse:
    """Makes an invitation; its link stands on the page that answers, and nowhere else."""
    team = get_team(request.user, slug, "manage")
    form = RoleForm(request.POST, own=require(request.user, team, "manage"))
    if not form.is_valid():
        messages.error(request, _("That role cannot be given by you."))
        return redirect("accounts:members", slug)
    token = invite(team=team, inviter=signed_in(request), role=form.chosen())
    return _members_page(request, team, link=request.build_absolute_uri(reverse("accounts:join", args=[token])))


def _members_page(request: HttpRequest, team: Team, link: str = "") -> HttpResponse:
    own = require(request.user, team, "view")
    enter(request, team)
    rows = [
        {
            "row": row,
            "form": RoleForm(own=own, initial={"role": row.role}, auto_id=f"role-{row.pk}"),
            "editable": rank(row.role) <= rank(own),
        }
        for row in team.memberships.select_related("user").order_by("user__username")
    ]
    return render(request, "accounts/members.html", {"members": rows, "invite_form": RoleForm(own=own), "invite_link": link})


@require_POST
def set_role(request: HttpRequest, slug: str, membership_id: UUID) -> HttpResponse:
    """Gives a member another role."""
    team = get_team(request.user, slug, "manage")
    try:
        role = Role(request.POST.get("role", ""))
        changed = change_role(team=team, actor=signed_in(request), membership_id=membership_id, role=role)
        messages.success(request, _("%(who)s is now %(role)s.") % {"who": changed.user, "role": role.label.lower()})
    except ValueError:
        messages.error(request, _("That is not a role."))
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return redirect("accounts:members", slug)


@require_POST
def remove(request: HttpRequest, slug: str, membership_id: UUID) -> HttpResponse:
    """Takes a person out of the team; who leaves by themselves lands on the front page."""
    team = get_team(request.user, slug)
    try:
        remove_member(team=team, actor=signed_in(request), membership_id=membership_id)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    left = not team.memberships.filter(user=signed_in(request)).exists()
    return redirect("home") if left else redirect("accounts:members", slug)


@sensitive_post_parameters()
@never_cache
@login_not_required
@require_http_methods(["GET", "POST"])
def join_team(request: HttpRequest, token: str) -> HttpResponse:
    """An invitation: whoever is signed in joins by a button, anybody else makes an account first."""
    try:
        invitation = open_invitation(token)
        user = request.user if isinstance(request.user, User) else None
        form = SignUpForm(request.POST or None) if user is None else None
        if request.method == "POST" and (form is None or form.is_valid()):
            return _joined(request, token, user, form)
    except UserError as error:
        return render(request, "accounts/join.html", {"error": error}, status=410)
    return render(request, "accounts/join.html", {"invitation": invitation, "form": form, "next": request.path},
                  status=422 if form is not None and form.errors else 200)  # fmt: skip


def _joined(request: HttpRequest, token: str, user: User | None, form: SignUpForm | None) -> HttpResponse:
    if user is None:
        assert form is not None  # noqa: S101 - for the type checker: a visitor has a form
        user = form.save(commit=False)
        membership = sign_up(token=token, user=user)
        login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    else:
        membership = join(token=token, user=user)
    enter(request, membership.team)
    return redirect("home")
