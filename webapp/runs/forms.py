"""The form of a new run. Words are in `runs.words`; types, bounds and defaults are drawn from `jobs` (`runs.fields`)."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import Q
from django.forms import BoundField
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from jobs.methods.registry import all_methods
from jobs.spec import RunSpec
from jobs.tasks.registry import ENTRIES
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.fields import setting_field, setting_name, spec_field
from webapp.runs.method_choice import FAMILIES, Family, MethodCard
from webapp.runs.method_choice import obstacles_of as method_obstacles
from webapp.runs.models import Run, Worker
from webapp.runs.services.specs import Recipe, with_adapters
from webapp.runs.task_choice import TaskCard, first_fitting, obstacle_of, obstacles_of
from webapp.runs.trained import Trained, by_method, trained_by
from webapp.runs.words import FIELDS


class RunForm(forms.Form):
    """A new run of `team`. `parameters()` of a valid form are the keyword arguments of `services.create.create_run`."""

    name = forms.CharField(
        label=_("Name"), max_length=120, required=False, help_text=_("Empty: made of the dataset and the method.")
    )  # fmt: skip
    dataset_version = forms.ModelChoiceField(
        DatasetVersion.objects.none(), label=_("Dataset"), empty_label=None,
        help_text=_("Versions that passed validation; a version never changes."),
    )  # fmt: skip
    base_model = forms.ModelChoiceField(
        BaseModel.objects.none(), label=_("Base model"), empty_label=None, help_text=_("The model that the training starts from."),
    )  # fmt: skip
    task = forms.ChoiceField(label=_("Task"), widget=forms.RadioSelect, choices=[(entry.id, entry.name) for entry in ENTRIES])
    method = forms.ChoiceField(label=_("Method"), widget=forms.RadioSelect)
    adapters = forms.ModelMultipleChoiceField(
        Run.objects.none(), label=_("Finished runs to build on"), required=False, widget=forms.CheckboxSelectMultiple,
        help_text=_("Their adapters stay as they are; the method learns how to use them together."),
    )  # fmt: skip

    def __init__(self, team: Team, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.team = team
        self.methods = {method.id: method for method in all_methods()}
        self.workers = list(Worker.objects.order_by("name"))
        versions = DatasetVersion.objects.filter(dataset__team=team, state=DatasetVersion.State.READY)
        models = BaseModel.objects.filter(Q(team=team) | Q(team=None), state=BaseModel.State.READY)
        self._choose("dataset_version", versions.select_related("dataset").order_by("-created_at"))
        self._choose("base_model", models.order_by("created_at"))
        self._choose("adapters", with_adapters(team).select_related("base_model").order_by("-created_at"))
        # Asked for when the form is drawn: what it is filled in with decides.
        self.fields["task"].initial = lambda: first_fitting(self.chosen("base_model"), self.chosen("dataset_version"))
        method = self.fields["method"]
        assert isinstance(method, forms.ChoiceField)  # noqa: S101 - for the type checker
        method.choices = [(each.id, each.name) for each in self.methods.values()]
        method.initial = "lora"
        for words in FIELDS:
            self.fields[words.path.replace(".", "_")] = spec_field(
                words.spec, words.path.rsplit(".", 1)[-1], label=words.label, help_text=words.help, choices=words.choices
            )
        for each in self.methods.values():
            for setting in each.settings:
                self.fields[setting_name(each, setting)] = setting_field(setting)

    def _choose(self, name: str, rows: Any) -> None:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        field.queryset = rows

    # -- what the template draws ---------------------------------------------------------------------------------------

    def section(self, name: str) -> list[BoundField]:
        """The fields of one section, in order."""
        return [self[words.path.replace(".", "_")] for words in FIELDS if words.section == name]

    @property
    def sections(self) -> dict[str, list[BoundField]]:
        """All sections by name."""
        return {name: self.section(name) for name in ("data", "training", "evaluation", "export", "advanced")}

    @property
    def advanced_open(self) -> bool:
        """Whether a folded field has an error, so that it must not stay folded."""
        return any(field.errors for field in self.section("advanced"))

    def families(self) -> list[Family]:
        """The methods to choose from."""
        cards = self._cards()
        return [
            Family(FAMILIES.get(name, name), [card for card in cards if card.method.family == name])
            for name in dict.fromkeys(card.method.family for card in cards)
        ]

    def tasks(self) -> list[TaskCard]:
        """The tasks to choose from."""
        chosen, model, version = self["task"].value(), self.chosen("base_model"), self.chosen("dataset_version")
        return [TaskCard(entry, entry.id == chosen, obstacle_of(entry.id, model, version)) for entry in ENTRIES]

    def task_obstacles(self) -> dict[str, dict[str, dict[str, str]]]:
        """Why tasks do not fit (`task_choice.obstacles_of`)."""
        return obstacles_of(self._rows("base_model"), self._rows("dataset_version"))

    @cached_property
    def obstacles(self) -> dict[str, dict[str, dict[str, str]]]:
        """Why methods do not fit (`method_choice.obstacles_of`)."""
        kinds = {worker.device.get("kind", "") for worker in self.workers} - {""}
        return method_obstacles(self.team, self._rows("base_model"), kinds)

    def trained(self) -> Trained | None:
        """What the chosen method would train with the settings as they stand; None where they are wrong or the base cannot be looked at."""
        method, model, task = self.methods.get(str(self["method"].value())), self.chosen("base_model"), self["task"].value()
        if method is None or model is None:
            return None
        try:
            given = {setting.name: self._value(setting_name(method, setting)) for setting in method.settings}
            adapters = self.fields["adapters"].clean(self["adapters"].value() or []) if method.capabilities.adapters else ()
        except forms.ValidationError:
            return None
        return trained_by(method, {name: value for name, value in given.items() if value not in (None, "")}, model.folder, task, adapters)

    def trained_by_method(self) -> dict[str, str]:
        """What each method trains at its defaults on the chosen base, in words, by its id."""
        model = self.chosen("base_model")
        return by_method(model.folder, self["task"].value()) if model else {}

    def _value(self, name: str) -> Any:
        """A field's value as it would be taken. Raises `ValidationError`."""
        return self.fields[name].clean(self[name].value())

    def _cards(self) -> list[MethodCard]:
        chosen, model, trained = self["method"].value(), self.chosen("base_model"), self.trained_by_method()
        reasons = self.obstacles.get(str(model.pk), {}).get(self["task"].value(), {}) if model else {}
        return [
            MethodCard(
                method=method,
                fields=[self[setting_name(method, setting)] for setting in method.settings],
                chosen=method.id == chosen,
                obstacle=reasons.get(method.id, ""),
                trained=trained.get(method.id, ""),
            )
            for method in self.methods.values()
        ]

    def _rows(self, name: str) -> list[Any]:
        field = self.fields[name]
        assert isinstance(field, forms.ModelChoiceField)  # noqa: S101 - for the type checker
        return list(field.queryset or ())

    def chosen(self, name: str) -> Any:
        """The row that the form shows as chosen: the first where none is."""
        chosen, rows = str(self[name].value()), self._rows(name)
        return next((row for row in rows if str(row.pk) == chosen), next(iter(rows), None))

    # -- what the service takes ----------------------------------------------------------------------------------------

    def clean(self) -> dict[str, Any]:
        """Drops what was typed for methods that were not chosen, faults included."""
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        chosen = self.methods.get(str(cleaned.get("method")))
        if chosen and not chosen.capabilities.adapters:
            cleaned.pop("adapters", None)
        for method in self.methods.values():
            for setting in method.settings if method.id != cleaned.get("method") else ():
                cleaned.pop(setting_name(method, setting), None)
                self.errors.pop(setting_name(method, setting), None)
        return cleaned

    def recipe(self) -> Recipe:
        """The run that a valid form asks for."""
        data = self.cleaned_data
        method = self.methods[data["method"]]
        groups: dict[str, dict[str, Any]] = {"training": {}, "evaluation": {}, "export": {}}
        for words in FIELDS:
            group, _dot, name = words.path.partition(".")
            if group in groups:
                groups[group][name] = data[words.path.replace(".", "_")]
        given = {setting.name: data.get(setting_name(method, setting)) for setting in method.settings}
        return Recipe(
            name=data["name"] or f"{data['dataset_version'].dataset.name}-{method.id}",
            dataset_version=data["dataset_version"],
            base_model=data["base_model"],
            task=data["task"],
            method=method.id,
            settings={name: value for name, value in given.items() if value not in (None, "")},
            adapters=list(data.get("adapters") or ()),
            seed=data["seed"],
            validation_share=data["data_validation_share"],
            **groups,
        )

    def refuse(self, error: UserError) -> None:
        """Shows an error of the service at the field that it names, or above the form."""
        words = f"{error.message} {error.remedy}"
        self.add_error(self._field_of(str(error.where.get("field", ""))), words)

    def _field_of(self, place: str) -> str | None:
        method = self.cleaned_data.get("method", "")
        parts = place.split(".")
        names = ["_".join(parts[:2]), parts[0], f"settings_{method}_{parts[-1]}"]
        return next((name for name in names if name in self.fields), None)


def initial_of(run: Run) -> dict[str, Any]:
    """The form's values that would make the same run again."""
    spec = RunSpec.from_json(run.spec)
    body = spec.to_json()
    values: dict[str, Any] = {
        "name": run.name, "dataset_version": run.dataset_version_id, "base_model": run.base_model_id, "task": spec.task,
        "method": run.method,
    }  # fmt: skip
    for words in FIELDS:
        group, _dot, name = words.path.partition(".")
        values[words.path.replace(".", "_")] = body[group][name] if name else body[group]
    for name, value in spec.method.settings.items():
        values[f"settings_{run.method}_{name}"] = value
    return values
