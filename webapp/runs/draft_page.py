"""What the page of a draft shows at each of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jobs.methods.registry import METHODS, get_method
from webapp.accounts.models import Team, User
from webapp.datasets.models import DatasetVersion
from webapp.runs.advice import page_of
from webapp.runs.drafts import STEPS, Change, before, changes, checked_form, following, steps
from webapp.runs.estimate import Panel, panel_of
from webapp.runs.forms import RunForm
from webapp.runs.models import RunDraft, RunPreset
from webapp.runs.presets import PRESETS
from webapp.runs.services.drafts import drafts_of
from webapp.runs.spec_shown import shown_spec

# On the steps before, too little is decided for figures.
ESTIMATED = ("method", "settings", "launch")


@dataclass(frozen=True)
class Begun:
    """What a draft was begun from: a `run` or a `preset` by name, with what differs from it now."""

    kind: str
    label: str
    changed: list[Change]


@dataclass(frozen=True)
class Listed:
    """A draft in the list: the step it stands at, the name it was given (or empty), and its data."""

    draft: RunDraft
    step: Any
    name: str
    data: str

    @property
    def method(self) -> str:
        """The name of its method, empty where that is no more."""
        entry = METHODS.get(str(self.draft.values.get("method")))
        return get_method(str(self.draft.values["method"])).name if entry else ""


def draft_page(draft: RunDraft, form: RunForm, step: str, **more: Any) -> dict[str, Any]:
    """The context of one step."""
    version = form.chosen("dataset_version")
    checked = checked_form(draft.team, draft.values) if step in ESTIMATED else None
    return page_of(
        form,
        **{
            "at": {name: name == step for name in STEPS},
            "draft": draft,
            "step": step,
            "steps": steps(step),
            "before": before(step),
            "following": following(step),
            "begun": begun(form, draft),
            "checked": version,
            "blocking": version.blocking if version is not None else None,
            "presets": PRESETS,
            "team_presets": list(RunPreset.objects.filter(team=draft.team)),
            "estimate": panel_of(draft.team, checked) if checked else Panel(),
            "shown_spec": shown_spec(checked) if checked else None,
            "advanced_changed": changed_of(form, "advanced"),
            **more,
        },
    )


def begun(form: RunForm, draft: RunDraft) -> list[Begun]:
    """From what, and how far from it."""
    return [Begun(kind, each["label"], changes(form, each["values"])) for kind, each in draft.origin.items()]


def changed_of(form: RunForm, section: str) -> int:
    """How many fields of a section are not at their default."""
    defaults = {bound.name: form.fields[bound.name].initial for bound in form.section(section)}
    return len(changes(form, defaults))


def listed(team: Team, user: User) -> list[Listed]:
    """The open drafts of a person. Two queries."""
    drafts = list(drafts_of(team, user))
    wanted = [draft.values.get("dataset_version") for draft in drafts]
    versions = DatasetVersion.objects.filter(dataset__team=team, pk__in=[each for each in wanted if each]).select_related("dataset")
    names = {str(version.pk): str(version) for version in versions}
    return [
        Listed(draft, STEPS.get(draft.step, ""), str(draft.values.get("name") or ""), names.get(str(data), ""))
        for draft, data in zip(drafts, wanted, strict=True)
    ]
