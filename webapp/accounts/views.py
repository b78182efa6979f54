"""The front door: the first page, a new team, an invitation."""

from __future__ import annotations

from allauth.account.utils import perform_login
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods

from jobs.errors import UserError
from webapp.accounts.access import current_team, enter, needs_two_factor, signed_in
from webapp.accounts.forms import SignUpForm, TeamForm
from webapp.accounts.models import User
from webapp.accounts.services.create_team import create_team
from webapp.accounts.services.join import join, open_invitation, sign_up


@require_GET
def home(request: HttpRequest) -> HttpResponse:
    """To the runs of the last used team; a person without a team is told how to get into one."""
    team = current_team(request)
    if team:
        return redirect("runs:list", team.slug)
    return render(request, "accounts/no_team.html", {"two_factor": needs_two_factor(request.user)})


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


@sensitive_post_parameters()
@never_cache
@login_not_required
@require_http_methods(["GET", "POST"])
def join_team(request: HttpRequest, token: str) -> HttpResponse:
    """An invitation: whoever is signed in joins by a button, anybody else makes an account first."""
    try:
        invitation = open_invitation(token)
        user = request.user if isinstance(request.user, User) else None
        form = SignUpForm(request.POST or None, initial={"email": invitation.email}) if user is None else None
        if request.method == "POST" and (form is None or form.is_valid()):
            return _joined(request, token, user, form)
    except UserError as error:
        return render(request, "accounts/join.html", {"error": error}, status=410)
    context = {"invitation": invitation, "form": form, "next": request.path}
    return render(request, "accounts/join.html", context, status=422 if form is not None and form.errors else 200)


def _joined(request: HttpRequest, token: str, user: User | None, form: SignUpForm | None) -> HttpResponse:
    if user is None:
        assert form is not None  # noqa: S101 - for the type checker: a visitor has a form
        user = form.save(commit=False)
        membership = sign_up(token=token, user=user)
        perform_login(request, user)
    else:
        membership = join(token=token, user=user)
    enter(request, membership.team)
    return redirect("home")
