"""The form of an experiment: what varies, and what all of its runs have in common."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from django import forms
from django.db.models import Q
from django.forms import BoundField
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from jobs.methods.entry import Method
from jobs.methods.registry import all_methods
from jobs.tasks.registry import ENTRIES
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.experiments.cells import LIMIT, SEEDS_LIMIT, Cell, numbers, rates
from webapp.runs.fields import spec_field
from webapp.runs.method_choice import FAMILIES
from webapp.runs.models import Experiment
from webapp.runs.services.experiment import checked
from webapp.runs.task_choice import first_fitting
from webapp.runs.words import FIELDS

# A cell brings its own.
_OF_CELLS = frozenset({"seed", "training.learning_rate"})
_RANK_LIMIT = 8192
_Read = TypeVar("_Read")


class AxesForm(forms.Form):
    """What varies. `axes()` of a valid form is what `experiments.cells` reads, `cells` the runs that it means."""

    kind = forms.ChoiceField(
        label=_("How the runs are told"), widget=forms.RadioSelect, initial="grid",
        choices=[("grid", _("Grid: every combination")), ("list", _("List: a line for each"))],
    )  # fmt: skip
    methods = forms.MultipleChoiceField(label=_("Methods"), required=False, initial=["lora"])
    ranks = forms.CharField(
        label=_("Ranks"), required=False, max_length=400,
        help_text=_("Such as 4, 8, 16. Empty: each method's own. A method without a rank runs once."),
    )  # fmt: skip
    scale_alpha = forms.BooleanField(
        label=_("Alpha grows with the rank"), required=False,
        help_text=_("Alpha / rank stays the method's own, so that ranks differ in capacity alone."),
    )  # fmt: skip
    rates = forms.CharField(
        label=_("Learning rates"), required=False, max_length=400,
        help_text=_("Such as 1e-4, 2e-4; “own” is each method's own. Empty: own."),
    )  # fmt: skip
    seeds = forms.CharField(
        label=_("Seeds"), required=False, initial="0", max_length=400,
        help_text=_("Such as 0-2: three runs of each, and a spread beside every mean."),
    )  # fmt: skip
    lines = forms.CharField(
        label=_("Runs, one a line"), required=False, strip=False, max_length=20_000,
        widget=forms.Textarea(attrs={"rows": 6, "spellcheck": "false", "class": "mono"}),
        help_text=_("A method, then its settings: lora rank=16 alpha=16 rate=1e-4 seed=0-2. What is left out is the method's own."),
    )  # fmt: skip

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Those that build on finished adapters are launched one by one.
        self.offered = [method for method in all_methods() if not method.capabilities.adapters]
        methods = self.fields["methods"]
        assert isinstance(methods, forms.MultipleChoiceField)  # noqa: S101 - for the type checker
        methods.choices = [(method.id, method.name) for method in self.offered]
        self.cells: list[Cell] = []

    def clean_ranks(self) -> list[int]:
        """The ranks as numbers."""
        return self._read("ranks", lambda text: numbers(text, lowest=1, highest=_RANK_LIMIT))

    def clean_seeds(self) -> list[int]:
        """The seeds as numbers."""
        return self._read("seeds", lambda text: numbers(text, lowest=0, highest=SEEDS_LIMIT))

    def clean_rates(self) -> list[float | None]:
        """The rates as numbers; None is each method's own."""
        return self._read("rates", rates)

    def _read(self, name: str, reader: Callable[[str], list[_Read]]) -> list[_Read]:
        if self.data.get("kind") == "list":
            return []  # what is not asked for is not looked at
        try:
            return reader(self.cleaned_data[name])
        except ValueError as fault:
            raise forms.ValidationError(str(fault)) from None

    def clean(self) -> dict[str, Any]:
        """Makes the cells."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if not {"ranks", "rates", "seeds", "kind"} <= set(cleaned):
            return cleaned
        try:
            self.cells = checked(self.axes())
        except ValueError as fault:
            self.add_error("lines" if cleaned["kind"] == "list" else "methods", str(fault))
        return cleaned

    def axes(self) -> dict[str, Any]:
        """What varies, as `Experiment.axes` keeps it."""
        data = self.cleaned_data
        if data["kind"] == "list":
            return {"lines": data["lines"]}
        return {name: data[name] for name in ("methods", "ranks", "rates", "seeds", "scale_alpha")}

    @property
    def limit(self) -> int:
        """How many runs one form may launch."""
        return LIMIT

    def families(self) -> list[tuple[Any, list[tuple[Method, bool]]]]:
        """The methods to choose from, by family, and whether each is chosen."""
        chosen = self["methods"].value() or []
        names = dict.fromkeys(method.family for method in self.offered)
        return [
            (FAMILIES.get(name, name), [(method, method.id in chosen) for method in self.offered if method.family == name])
            for name in names
        ]

    def refuse(self, error: UserError) -> None:
        """Shows an error of the service at the field that it names, else at what varies."""
        place = str(error.where.get("field", "")).replace(".", "_")
        chosen = "lines" if self.cleaned_data.get("kind") == "list" else "methods"
        self.add_error(place if place in self.fields else chosen, f"{error.message} {error.remedy}")


class ExperimentForm(AxesForm):
    """A new experiment of `team`. `parameters()` of a valid form are the keyword arguments of `services.experiment.create_experiment`."""

    token = forms.UUIDField(widget=forms.HiddenInput)
    name = forms.CharField(label=_("Name"), max_length=80, required=False, help_text=_("Empty: made of the dataset."))
    note = forms.CharField(
        label=_("Note"), required=False, max_length=4000, widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("What you want to find out."),
    )  # fmt: skip
    dataset_version = forms.ModelChoiceField(DatasetVersion.objects.none(), label=_("Dataset"), empty_label=None)
    base_model = forms.ModelChoiceField(BaseModel.objects.none(), label=_("Base model"), empty_label=None)
    task = forms.ChoiceField(
        label=_("Task"), required=False, help_text=_("Automatic: the first that data and model serve."),
        choices=[("", _("Automatic")), *((entry.id, entry.name) for entry in ENTRIES)],
    )  # fmt: skip

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.team = team
        self.fields["token"].initial = uuid.uuid4
        versions = DatasetVersion.objects.filter(dataset__team=team, state=DatasetVersion.State.READY)
        models = BaseModel.objects.filter(Q(team=team) | Q(team=None), state=BaseModel.State.READY)
        self._choose("dataset_version", versions.select_related("dataset").order_by("-created_at"))
        self._choose("base_model", models.order_by("created_at"))
        for words in FIELDS:
            if words.path not in _OF_CELLS:
                self.fields[words.path.replace(".", "_")] = spec_field(
                    words.spec, words.path.rsplit(".", 1)[-1], label=words.label, help_text=words.help, choices=words.choices
                )

    def _choose(self, name: str, rows: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        field.queryset = rows

    @cached_property
    def has_data(self) -> bool:
        """Whether there is anything to train on."""
        field = self.fields["dataset_version"]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        return field.queryset is not None and field.queryset.exists()

    @property
    def sections(self) -> dict[str, list[BoundField]]:
        """The fields of the shared settings by section."""
        found: dict[str, list[BoundField]] = {}
        for words in FIELDS:
            if words.path not in _OF_CELLS:
                found.setdefault(words.section, []).append(self[words.path.replace(".", "_")])
        return found

    @property
    def open(self) -> Sequence[str]:
        """The sections with an error, so that they must not stay folded."""
        return [name for name, fields in self.sections.items() if any(field.errors for field in fields)]

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of `create_experiment` besides team and user."""
        data = self.cleaned_data
        return {
            "name": data["name"].strip() or f"{data['dataset_version'].dataset.name}"[:80],
            "note": data["note"],
            "token": data["token"],
            "axes": self.axes(),
            "dataset_version": data["dataset_version"],
            "base_model": data["base_model"],
            "shared": self.shared(),
        }

    def shared(self) -> dict[str, Any]:
        """What all runs have in common, as `create_run` takes it."""
        data = self.cleaned_data
        groups: dict[str, dict[str, Any]] = {"training": {}, "evaluation": {}, "export": {}}
        for words in FIELDS:
            group, _dot, name = words.path.partition(".")
            if group in groups and words.path not in _OF_CELLS:
                groups[group][name] = data[words.path.replace(".", "_")]
        task = data["task"] or first_fitting(data["base_model"], data["dataset_version"])
        return {"task": task, "validation_share": data["data_validation_share"], **groups}


def initial_of(experiment: Experiment) -> dict[str, Any]:
    """The form's values that would make the same experiment again."""
    spec, axes = experiment.spec, experiment.axes
    values: dict[str, Any] = {
        "name": experiment.name, "note": experiment.note, "dataset_version": spec["dataset_version"], "base_model": spec["base_model"],
        "task": spec["task"], "kind": experiment.kind, "data_validation_share": spec["validation_share"],
    }  # fmt: skip
    for group in ("training", "evaluation", "export"):
        values |= {f"{group}_{name}": value for name, value in spec[group].items()}
    if "lines" in axes:
        return {**values, "lines": axes["lines"]}
    written = {
        "ranks": ", ".join(map(str, axes["ranks"])),
        "rates": ", ".join("own" if rate is None else f"{rate:g}" for rate in axes["rates"]),
        "seeds": ", ".join(map(str, axes["seeds"])),
    }
    return {**values, **written, "methods": axes["methods"], "scale_alpha": axes["scale_alpha"]}
