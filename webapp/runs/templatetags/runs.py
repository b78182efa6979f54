"""Tags of the pages about runs (`{% load runs %}`): the state as a tag, a setting that explains itself."""

from __future__ import annotations

from typing import Any

from django import template
from django.forms import BoundField
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _

from webapp.core.formats import NONE, THIN
from webapp.core.templatetags.graft import icon
from webapp.runs.explained import explained
from webapp.runs.figures import Headline
from webapp.runs.models import Run
from webapp.runs.states import LOOK, State

register = template.Library()


@register.simple_tag
def state_tag(run: Run, *, progress: bool = True) -> SafeString:
    """The state of a run as a tag: icon and words, with the cause where it failed and, with `progress`, the share done while it trains."""
    look, name = LOOK[State(run.state)]
    return format_html('<span class="tag {}">{}<span>{}</span></span>', look, icon(name), state_words(run, progress=progress))


def state_words(run: Run, *, progress: bool) -> str:
    """`Running 62 %`, `Failed: cuda_oom`, `Queued`."""
    words = str(State(run.state).label)
    if progress and run.state == State.RUNNING and run.total_steps:
        return f"{words} {100 * run.last_step // run.total_steps}{THIN}%"
    if run.state == State.FAILED and run.failure_code:
        return f"{words}: {run.failure_code}"
    return words


@register.simple_tag
def base_and_tuned(figure: Headline | None) -> str:
    """The figure before and after the training, an arrow between them; a dash where there is none. Python, since a list asks for many."""
    if figure is None:
        return NONE
    return format_html(
        '<span class="sr">{} </span>{}{} <span aria-hidden="true">→</span><span class="sr"> {} </span> {}',
        _("base"), _("chance") + " " if figure.chance else "", figure.base, _("tuned"), figure.tuned,
    )  # fmt: skip


@register.inclusion_tag("runs/_setting.html")
def setting(bound: BoundField) -> dict[str, Any]:
    """A field of the form, with what is usual for it and where its default comes from, folded."""
    return {"field": bound, "explained": explained(bound)}
