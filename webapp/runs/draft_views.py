"""Pages of a run that is being filled in, a step at a time. What is typed is kept on the server, so that nothing is lost."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from jobs.errors import UserError
from webapp.accounts.access import enter, get_team, signed_in
from webapp.runs import draft_page
from webapp.runs.drafts import STEPS, checked_form, following, plain, sent, shown_form, step_of
from webapp.runs.estimate import panel_of
from webapp.runs.filling import fill, typed
from webapp.runs.forms import RunForm
from webapp.runs.models import RunDraft, RunPreset
from webapp.runs.presets import built_in, settings_of, whole
from webapp.runs.services import drafts as drafting
from webapp.runs.services import presets as keeping
from webapp.runs.views import begun_with, new_run


@require_http_methods(["GET", "POST"])
def start(request: HttpRequest, slug: str) -> HttpResponse:
    """Begins a draft with what the query names (as `views.new_run`) and goes to its first step; a run, or an analysis' advice, has its
    data and model, and begins at the settings. A form that is sent whole is launched.
    """
    if request.method == "POST":
        return new_run(request, slug)
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    values, origin = begun_with(request, team)
    form = RunForm(team, initial=values)
    fill(form, request.GET)
    if not form.fields["dataset_version"].queryset.exists():  # type: ignore[attr-defined]  # a ModelChoiceField
        return render(request, "runs/new.html", {"form": form})
    step = "settings" if values.keys() & {"training_epochs"} else "model" if request.GET.get("dataset") else "data"
    kept = plain(typed(RunForm(team, sent(form))))
    begun = {"run": {"label": origin, "values": kept}} if origin else {}
    draft = drafting.begin(team, signed_in(request), kept, step=step, origin=begun)
    return _to(draft, step)


@require_http_methods(["GET", "POST"])
def step(request: HttpRequest, slug: str, draft_id: UUID, name: str) -> HttpResponse:
    """One step of a draft. Sent, it is kept; then what the pressed button asks for is done. One that was launched leads to its run."""
    draft = _open_draft(request, slug, draft_id)
    if draft is None:
        return redirect("runs:detail", draft_id)
    if name not in STEPS:
        raise Http404
    if request.method == "GET":
        if draft.step != name:
            drafting.save(draft, draft.values, step=name)
        return _page(request, draft, shown_form(draft), name)
    form = RunForm(draft.team, request.POST)
    drafting.save(draft, plain(typed(form)), step=name)
    if "launch" in request.POST:
        return _launch(request, draft, name)
    if "go" in request.POST:
        return _to(draft, request.POST["go"] if request.POST["go"] in STEPS else following(name))
    _change(request, draft, form)
    return _to(draft, name)


@require_POST
def estimate(request: HttpRequest, slug: str, draft_id: UUID) -> HttpResponse:
    """The estimate of the form as it was sent, which is kept; nothing where it is being launched meanwhile."""
    draft = _open_draft(request, slug, draft_id)
    if draft is None:
        return HttpResponse(status=204)
    form = RunForm(draft.team, request.POST)
    drafting.save(draft, plain(typed(form)))
    return render(
        request, "runs/_estimate.html", {"estimate": panel_of(draft.team, form), "draft": draft, "team": draft.team, "step": draft.step}
    )


@require_http_methods(["GET"])
def drafts(request: HttpRequest, slug: str) -> HttpResponse:
    """The open drafts of the reader in the team."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    return render(request, "runs/drafts.html", {"drafts": draft_page.listed(team, signed_in(request)), "days": drafting.KEPT_DAYS})


@require_POST
def discard(request: HttpRequest, slug: str, draft_id: UUID) -> HttpResponse:
    """Throws a draft away."""
    draft = _open_draft(request, slug, draft_id)
    if draft is None:
        return redirect("runs:detail", draft_id)
    drafting.discard(draft)
    messages.success(request, _("The draft was discarded."))
    return redirect("runs:drafts", slug)


def _open_draft(request: HttpRequest, slug: str, draft_id: UUID) -> RunDraft | None:
    """The reader's own draft; None where it has become a run. Those of others are nobody's business. Raises `Http404`."""
    team = get_team(request.user, slug, "launch")
    enter(request, team)
    draft = drafting.drafts_of(team, signed_in(request)).select_related("team").filter(pk=draft_id).first()
    if draft is None and not drafting.launched(team, draft_id):
        raise Http404
    return draft


def _launch(request: HttpRequest, draft: RunDraft, name: str) -> HttpResponse:
    form = checked_form(draft.team, draft.values)
    if form.is_valid():
        try:
            return redirect("runs:detail", drafting.launch(draft, form.recipe(), signed_in(request)))
        except UserError as error:
            form.refuse(error)
    wrong = next((field for field in form.errors if field in form.fields), None)
    return _page(request, draft, form, step_of(wrong) if wrong else name, status=422)


def _change(request: HttpRequest, draft: RunDraft, form: RunForm) -> None:
    """What a button of the settings asks for: a field put back, a preset taken, kept or forgotten, values filled in."""
    asked = request.POST
    if "reset" in asked:
        kind, _sep, field = asked["reset"].partition(".")
        before = draft.origin.get(kind, {}).get("values", {})
        if field in before:
            drafting.save(draft, {**draft.values, field: before[field]})
    elif "use" in asked:
        filled = RunForm(draft.team, initial=draft.values)
        fill(filled, QueryDict(asked["use"]))
        drafting.save(draft, plain(typed(RunForm(draft.team, sent(filled)))))
    elif "preset" in asked:
        _take(draft, form, asked["preset"])
    elif "keep" in asked and asked.get("preset_name", "").strip():
        keeping.keep(draft.team, signed_in(request), asked["preset_name"], plain(settings_of(form)))
        messages.success(request, _("The settings are kept under this name for the team."))
    elif "keep" in asked:
        messages.error(request, _("The settings were not kept: give them a name."))
    elif "forget" in asked:
        keeping.forget(draft.team, _uuid(asked["forget"]))


def _take(draft: RunDraft, form: RunForm, wanted: str) -> None:
    """Takes a preset: its values, from which changes are told from now on. One that is no more changes nothing."""
    preset = built_in(wanted)
    if preset is not None:
        label, values = str(preset.label), plain(whole(form, preset))
    else:
        own = get_object_or_404(RunPreset, team=draft.team, pk=_uuid(wanted))
        label, values = own.name, {name: value for name, value in own.values.items() if name in form.fields}
    draft.origin = {**draft.origin, "preset": {"label": label, "values": values}}
    draft.save(update_fields=["origin"])
    drafting.save(draft, {**draft.values, **values})


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise Http404 from None


def _page(request: HttpRequest, draft: RunDraft, form: RunForm, name: str, **options: Any) -> HttpResponse:
    return render(request, "runs/new.html", draft_page.draft_page(draft, form, name), **options)


def _to(draft: RunDraft, name: str) -> HttpResponse:
    return redirect(reverse("runs:step", args=[draft.team.slug, draft.pk, name]))
