"""Pages of a team's members: who is in it, who is invited, what becomes of their roles."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, rank, require, signed_in
from webapp.accounts.forms import ConfirmForm, InviteForm, RoleForm
from webapp.accounts.models import Membership, Role, Team
from webapp.accounts.recent import require_recent_sign_in
from webapp.accounts.services.invite import invite, open_invitations, renew, revoke
from webapp.accounts.services.members import change_role, hand_over, remove_member
from webapp.accounts.services.send_invitation import send_invitation
from webapp.core.links import at_site


@require_GET
def members(request: HttpRequest, slug: str) -> HttpResponse:
    """The members, their roles, the open invitations, and the form of another."""
    return _members_page(request, get_team(request.user, slug))


@require_POST
def invite_member(request: HttpRequest, slug: str) -> HttpResponse:
    """Makes an invitation; its link stands on the page that answers or in the mail, and nowhere else."""
    team = get_team(request.user, slug, "manage")
    form = InviteForm(request.POST, own=require(request.user, team, "manage"))
    if not form.is_valid():
        return _members_page(request, team, form=form, status=422)
    email = form.cleaned_data["email"]
    token = invite(team=team, inviter=signed_in(request), role=form.chosen(), email=email)
    return _with_link(request, team, token, email)


@require_POST
def renew_invitation(request: HttpRequest, slug: str, invitation_id: UUID) -> HttpResponse:
    """Gives an invitation a new link and a new time."""
    team = get_team(request.user, slug, "manage")
    try:
        invitation, token = renew(team=team, actor=signed_in(request), invitation_id=invitation_id)
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
        return redirect("accounts:members", slug)
    return _with_link(request, team, token, invitation.email)


def _with_link(request: HttpRequest, team: Team, token: str, email: str) -> HttpResponse:
    link = at_site(request.build_absolute_uri(reverse("accounts:join", args=[token])))
    sent = send_invitation(team=team, inviter=signed_in(request), email=email, link=link)
    if sent:
        messages.success(request, _("The invitation was sent to %(email)s.") % {"email": email})
        return redirect("accounts:members", team.slug)
    return _members_page(request, team, link=link)


@require_POST
def revoke_invitation(request: HttpRequest, slug: str, invitation_id: UUID) -> HttpResponse:
    """Ends an invitation."""
    team = get_team(request.user, slug, "manage")
    revoke(team=team, actor=signed_in(request), invitation_id=invitation_id)
    messages.success(request, _("The invitation was revoked: its link no longer works."))
    return redirect("accounts:members", slug)


def _members_page(request: HttpRequest, team: Team, *, link: str = "", form: InviteForm | None = None, status: int = 200) -> HttpResponse:
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
    context: dict[str, Any] = {"members": rows, "invite_form": form or InviteForm(own=own), "invite_link": link}
    if rank(own) >= rank(Role.MAINTAINER):
        context["invitations"] = open_invitations(team)
    return render(request, "accounts/members.html", context, status=status)


@require_POST
def set_role(request: HttpRequest, slug: str, membership_id: UUID) -> HttpResponse:
    """Gives a member another role."""
    team = get_team(request.user, slug, "manage")
    try:
        role = Role(request.POST.get("role", ""))
        changed = change_role(team=team, actor=signed_in(request), membership_id=membership_id, role=role)
        messages.success(request, _("%(who)s is now %(role)s.") % {"who": changed.user, "role": str(role.label).lower()})
    except ValueError:
        messages.error(request, _("That is not a role."))
    except UserError as error:
        messages.error(request, f"{error.message} {error.remedy}")
    return redirect("accounts:members", slug)


@require_http_methods(["GET", "POST"])
def remove(request: HttpRequest, slug: str, membership_id: UUID) -> HttpResponse:
    """Asks for the name, then takes a person out of the team; who leaves by themselves lands on the front page."""
    team = get_team(request.user, slug)
    membership = _membership(team, membership_id)
    leaving = membership.user_id == signed_in(request).pk
    if not leaving:
        require(request.user, team, "manage")
    form = ConfirmForm(request.POST or None, expected=team.name if leaving else membership.user.username)
    if request.method == "POST" and form.is_valid():
        try:
            remove_member(team=team, actor=signed_in(request), membership_id=membership_id)
            return redirect("home") if leaving else redirect("accounts:members", slug)
        except UserError as error:
            form.add_error(None, f"{error.message} {error.remedy}")
    return _confirm(request, team, "accounts/remove.html", {"membership": membership, "leaving": leaving, "form": form})


@require_http_methods(["GET", "POST"])
def give_ownership(request: HttpRequest, slug: str, membership_id: UUID) -> HttpResponse:
    """Asks for the team's name, then makes the member owner and the acting owner a maintainer."""
    team = get_team(request.user, slug, "own")
    membership = _membership(team, membership_id)
    form = ConfirmForm(request.POST or None, expected=team.name)
    if request.method == "POST" and form.is_valid():
        require_recent_sign_in(request)
        try:
            heir = hand_over(team=team, actor=signed_in(request), membership_id=membership_id)
            messages.success(request, _("%(who)s now owns the team; you are a maintainer.") % {"who": heir.user})
            return redirect("accounts:members", slug)
        except UserError as error:
            form.add_error(None, f"{error.message} {error.remedy}")
    return _confirm(request, team, "accounts/hand_over.html", {"membership": membership, "form": form})


def _membership(team: Team, membership_id: UUID) -> Membership:
    membership = team.memberships.select_related("user").filter(pk=membership_id).first()
    if membership is None:
        raise Http404
    return membership


def _confirm(request: HttpRequest, team: Team, template: str, context: dict[str, Any]) -> HttpResponse:
    enter(request, team)
    return render(request, template, context, status=422 if context["form"].errors else 200)
