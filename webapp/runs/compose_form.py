"""The form that combines finished adapters: words live here, bounds and defaults come from `jobs.composition.spec`, what goes with what
from `jobs.composition.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.forms import BoundField
from django.utils.translation import gettext_lazy as _

from jobs.composition.combinations import COMBINATIONS, Combination
from jobs.composition.rules import Finished, difference, misfit, obstacle
from jobs.composition.spec import CompositionSpec, PartSpec
from jobs.errors import UserError
from webapp.accounts.models import Team
from webapp.datasets.models import DatasetVersion
from webapp.runs.fields import spec_field
from webapp.runs.models import Run
from webapp.runs.services.compositions import composable, finished, parts_of
from webapp.runs.services.create import NAME_LENGTH
from webapp.runs.words import FIELDS

# Of the team's finished adapters the newest are offered, and those that were asked for.
OFFERED = 100
LEAST = 2
# What is measured and left behind is asked as in the form of a run.
SHARED = tuple(words for words in FIELDS if words.path.startswith(("evaluation.", "export.")))
# Where the words of a run's form would speak of a training.
WORDS: dict[str, tuple[Any, Any]] = {
    "evaluation.generate": (
        _("Compare answers"), _("All models answer held-out rows; exact matches are counted. Without it only the losses are compared."),
    ),
    "evaluation.retention": (
        _("Measure forgetting"), _("All models are measured on sixty short general texts, so that the page says what was lost."),
    ),
    "export.merge": (
        _("Merged model"), _("The adapter is always kept. A merged model loads without PEFT; it takes as long to make as that of a run."),
    ),
}  # fmt: skip
SETTINGS: dict[str, tuple[Any, Any]] = {
    "rank": (
        _("Cut to rank"), _("Empty: the largest rank of the adapters. More keeps more of the sum, in a larger file."),
    ),
    "density": (_("Density"), _("Share of the entries that are kept; the rest is dropped. 0.3 to 0.7 is usual.")),
    "seed": (_("Seed"), _("What DARE drops by: the same seed drops the same entries.")),
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """A finished run in the form: `obstacle` says why its adapter cannot be taken ("" where it can), alone or beside the first chosen one;
    `key` is that of what it goes with.
    """

    run: Run
    adapter: Finished
    weight: BoundField
    chosen: bool
    alone: str
    obstacle: str
    key: str


@dataclass(frozen=True)
class Card:
    """A way to combine, as the form shows it."""

    combination: Combination
    chosen: bool
    obstacle: str


class ComposeForm(forms.Form):
    """A composition of adapters of `team`. `parameters()` of a valid form are keyword arguments of `services.compose.compose_run`."""

    name = forms.CharField(label=_("Name"), max_length=NAME_LENGTH, required=False, help_text=_("Empty: made of the adapters' names."))
    adapters = forms.ModelMultipleChoiceField(
        Run.objects.none(), label=_("Adapters"), widget=forms.CheckboxSelectMultiple,
        error_messages={"required": _("Choose two adapters at least.")},
    )  # fmt: skip
    combination = forms.ChoiceField(
        label=_("Combination"), choices=[(each.id, each.name) for each in COMBINATIONS.values()], initial="cat", widget=forms.RadioSelect
    )
    dataset_version = forms.ModelChoiceField(
        DatasetVersion.objects.none(), label=_("Data to measure on"), required=False,
        empty_label=_("The rows that the first adapter's run held out"),
        help_text=_("Of a version that an adapter was trained on, the rows that its run held out; else its test or validation rows."),
    )  # fmt: skip

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        runs = composable(team)
        self._choose("adapters", runs)
        versions = DatasetVersion.objects.filter(dataset__team=team, state=DatasetVersion.State.READY)
        self._choose("dataset_version", versions.select_related("dataset").order_by("-created_at"))
        for name, (label, words) in SETTINGS.items():
            self.fields[name] = spec_field(CompositionSpec, name, label=label, help_text=words)
        for each in SHARED:
            label, words = WORDS.get(each.path, (each.label, each.help))
            self.fields[each.path.replace(".", "_")] = spec_field(
                each.spec, each.path.rpartition(".")[2], label=label, help_text=words, choices=each.choices
            )
        self.fields["export_merge"].initial = "none"
        asked = self._asked()
        self.runs = list({run.pk: run for run in (*runs.filter(pk__in=asked), *runs[:OFFERED])}.values())
        self.runs.sort(key=lambda run: run.created_at, reverse=True)
        self._chosen = [run for run in self.runs if run.pk in asked]
        self._adapters = {run.pk: finished(run) for run in self.runs}
        for run in self.runs:
            weight = spec_field(PartSpec, "weight", label=_("Weight of %(name)s") % {"name": run.name}, help_text="")
            weight.required = False
            self.fields[weight_name(run)] = weight

    def _choose(self, name: str, rows: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        field.queryset = rows

    def _asked(self) -> set[UUID]:
        """The ids that were chosen, as far as they are ids."""
        found = set()
        for value in self["adapters"].value() or ():
            try:
                found.add(UUID(str(value)))
            except ValueError:
                continue
        return found

    # -- what the template draws ---------------------------------------------------------------------------------------

    def context(self) -> dict[str, Any]:
        """The context of the page."""
        return {
            "form": self,
            "candidates": self.candidates(),
            "cards": self.cards(),
            "settings": [(name, self[name]) for name in SETTINGS],
            "evaluation_fields": self.section("evaluation"),
            "export_fields": self.section("export"),
        }

    def candidates(self) -> list[Candidate]:
        """The adapters to choose from; those that do not go with the first chosen one say why."""
        first = next((self._adapters[run.pk] for run in self._chosen if not obstacle(self._adapters[run.pk])), None)
        found = []
        for run in self.runs:
            adapter = self._adapters[run.pk]
            alone = obstacle(adapter)
            reason = alone or (difference(adapter, first) if first else "")
            weight = self[weight_name(run)]
            found.append(Candidate(run, adapter, weight, run in self._chosen, alone, reason, key_of(adapter)))
        return found

    def cards(self) -> list[Card]:
        """The ways to combine."""
        kind = self._adapters[self._chosen[0].pk].kind if self._chosen else ""
        chosen = self["combination"].value()
        return [Card(each, each.id == chosen, misfit(each.id, kind)) for each in COMBINATIONS.values()]

    def rules(self) -> dict[str, Any]:
        """For the page's script: why adapters do not go together and combinations do not fit, by the keys of candidates; what goes is left
        out. `uses` says which settings a combination has.
        """
        kinds = {key_of(adapter): adapter for adapter in self._adapters.values() if not obstacle(adapter)}
        apart = {key: {other: difference(kinds[other], first) for other in kinds} for key, first in kinds.items()}
        return {
            "apart": {key: {other: reason for other, reason in found.items() if reason} for key, found in apart.items()},
            "misfits": {
                key: {name: reason for name in COMBINATIONS if (reason := misfit(name, adapter.kind))} for key, adapter in kinds.items()
            },
            "uses": {each.id: uses(each) for each in COMBINATIONS.values()},
        }

    def section(self, name: str) -> list[BoundField]:
        """The fields of `evaluation` or `export`."""
        return [self[words.path.replace(".", "_")] for words in SHARED if words.path.startswith(f"{name}.")]

    # -- what the service takes ----------------------------------------------------------------------------------------

    def clean_adapters(self) -> list[Run]:
        """Two at least, in the order shown."""
        chosen = {run.pk: run for run in self.cleaned_data["adapters"]}
        if len(chosen) < LEAST:
            raise ValidationError(self.fields["adapters"].error_messages["required"])
        return [chosen[run.pk] for run in self.runs if run.pk in chosen]

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of `compose_run` besides team and user."""
        data, runs = self.cleaned_data, self.cleaned_data["adapters"]
        groups: dict[str, dict[str, Any]] = {"evaluation": {}, "export": {}}
        for words in SHARED:
            group, _dot, name = words.path.partition(".")
            groups[group][name] = data[words.path.replace(".", "_")]
        return {
            "name": data["name"] or " + ".join(run.name for run in runs)[:NAME_LENGTH],
            "parts": [(run, 1.0 if (weight := data.get(weight_name(run))) is None else weight) for run in runs],
            "combination": data["combination"],
            "rank": data["rank"],
            "density": data["density"],
            "seed": data["seed"],
            "dataset_version": data["dataset_version"],
            **groups,
        }

    def refuse(self, error: UserError) -> None:
        """Shows an error of the service at the field that it names, or above the form."""
        place = str(error.where.get("field", ""))
        names = (place.replace(".", "_"), place.partition(".")[0])
        self.add_error(next((name for name in names if name in self.fields), None), f"{error.message} {error.remedy}")


def weight_name(run: Run) -> str:
    """The form's name of an adapter's weight."""
    return f"weight_{run.pk}"


def key_of(adapter: Finished) -> str:
    """Adapters of one key go together."""
    return "|".join((adapter.base_id, adapter.kind, *map(str, adapter.grid)))


def uses(combination: Combination) -> list[str]:
    """The settings that a combination depends on."""
    depends = {"rank": combination.of == "update", "density": combination.prunes, "seed": combination.draws}
    return [name for name, it_does in depends.items() if it_does]


def initial_of(run: Run) -> dict[str, Any]:
    """The form's values that would make the same composition again."""
    spec = CompositionSpec.from_json(run.spec).to_json()
    values: dict[str, Any] = {
        "name": run.name, "dataset_version": run.dataset_version_id, "combination": spec["combination"],
        "adapters": [str(part) for part, _name, _weight in parts_of(run)],
    }  # fmt: skip
    values |= {f"weight_{part}": weight for part, _name, weight in parts_of(run)}
    values |= {name: spec[name] for name in SETTINGS}
    for words in SHARED:
        group, _dot, name = words.path.partition(".")
        values[words.path.replace(".", "_")] = spec[group][name]
    return values
