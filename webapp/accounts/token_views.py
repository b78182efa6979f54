"""The page of a team's API tokens."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST

from webapp.accounts.access import enter, get_team, signed_in
from webapp.accounts.forms import TokenForm
from webapp.accounts.recent import require_recent_sign_in
from webapp.accounts.services.tokens import make_token, revoke_token, tokens_of


@never_cache
@require_http_methods(["GET", "POST"])
def tokens(request: HttpRequest, slug: str) -> HttpResponse:
    """The tokens that stand, and the form of another; a new one is shown on the page that answers, and nowhere else."""
    team = get_team(request.user, slug)
    enter(request, team)
    user = signed_in(request)
    form = TokenForm(request.POST or None)
    secret = ""
    if request.method == "POST" and form.is_valid():
        require_recent_sign_in(request)
        _token, secret = make_token(team=team, user=user, name=form.cleaned_data["name"], scopes=form.scopes(), days=form.days_or_none())
        form = TokenForm()
    newest = team.runs.order_by("-created_at").first()
    example = request.build_absolute_uri(reverse("runs:series", args=[newest.pk])) if newest else ""
    context = {"tokens": tokens_of(team, user), "form": form, "secret": secret, "example": example}
    return render(request, "accounts/tokens.html", context, status=422 if form.errors else 200)


@require_POST
def revoke(request: HttpRequest, slug: str, token_id: UUID) -> HttpResponse:
    """Ends a token at once."""
    team = get_team(request.user, slug)
    token = revoke_token(team=team, actor=signed_in(request), token_id=token_id)
    messages.success(request, _("The token %(name)s was revoked: it opens nothing any more.") % {"name": token.name})
    return redirect("accounts:tokens", slug)
