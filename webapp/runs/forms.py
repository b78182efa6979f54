"""The form of a new run. Words live here; types, bounds and defaults are drawn from `jobs` (`runs.fields`)."""

from __future__ import annotations

from typing import Any, NamedTuple

from django import forms
from django.db.models import Q
from django.forms import BoundField
from django.utils.functional import cached_property
from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from jobs.methods.registry import all_methods
from jobs.spec import DataSpec, EvaluationSpec, ExportSpec, RunSpec, TrainingSpec
from jobs.tasks.registry import ENTRIES
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.runs.fields import setting_field, setting_name, spec_field
from webapp.runs.method_choice import FAMILIES, Family, MethodCard
from webapp.runs.method_choice import obstacles_of as method_obstacles
from webapp.runs.models import Run, Worker
from webapp.runs.services.specs import with_adapters
from webapp.runs.task_choice import TaskCard, first_fitting, obstacle_of, obstacles_of
from webapp.runs.trained import Trained, by_method, trained_by


class Words(NamedTuple):
    """How one field of the spec is shown: the section of the form it stands in, its label, its help."""

    spec: type[Any]
    path: str
    section: str
    label: Any
    help: Any
    choices: dict[str, Any] = {}


FIELDS = (
    Words(
        TrainingSpec, "training.epochs", "training", _("Epochs"),
        _("How often each row is seen. 1 to 3 is usual; 1 from about 50,000 rows on. Part epochs such as 0.5 are allowed."),
    ),
    Words(
        TrainingSpec, "training.learning_rate", "training", _("Learning rate"),
        _("The size of a step. Empty: the method's own default; a low-rank adapter wants about ten times that of full fine-tuning."),
    ),
    Words(
        TrainingSpec, "training.micro_batch", "training", _("Micro-batch"),
        _("Rows in memory at once. Halve it when memory runs out, and double the accumulation to keep the result."),
    ),
    Words(
        TrainingSpec, "training.gradient_accumulation", "training", _("Gradient accumulation"),
        _("Micro-batches summed into one step. Micro-batch × accumulation is the effective batch; 16 is usual."),
    ),
    Words(
        TrainingSpec, "training.schedule", "training", _("Schedule"),
        _("How the learning rate moves after the warm-up."),
        {
            "cosine": _("Cosine, down to zero"),
            "linear": _("Linear, down to zero"),
            "constant": _("Constant"),
            "cosine_with_restarts": _("Cosine with restarts"),
        },
    ),
    Words(
        TrainingSpec, "training.warmup_share", "training", _("Warm-up"),
        _("Share of all steps in which the rate rises from zero: 0.03 is three per cent. 0 to 0.1 is usual."),
    ),
    Words(
        TrainingSpec, "training.max_length", "training", _("Maximum length"),
        _("In tokens; longer rows are cut. Empty: taken from the data, up to what the model can read."),
    ),
    Words(
        TrainingSpec, "training.precision", "training", _("Precision"),
        _("Of the frozen weights and the arithmetic."),
        {
            "auto": _("Automatic: what the device does best"),
            "bfloat16": "bfloat16",
            "float32": "float32",
            "float16": _("float16: for GPUs without bfloat16"),
        },
    ),
    Words(
        TrainingSpec, "training.early_stopping_evaluations", "training", _("Stop early after … validations without gain"),
        _("Ends the training once the validation loss has not fallen so many times. Empty: all steps. 2 or 3 is usual."),
    ),
    Words(
        TrainingSpec, "training.final_weights", "training", _("Weights to keep"),
        _("The best are those of the lowest validation loss: a checkpoint is written whenever it falls."),
        {"last": _("Those of the last step"), "best": _("The best")},
    ),
    Words(
        DataSpec, "data.validation_share", "data", _("Validation share"),
        _("Share of the training rows set aside to measure the loss on, where the dataset has no validation rows of its own."),
    ),
    Words(
        EvaluationSpec, "evaluation.generate", "evaluation", _("Compare answers of base and tuned model"),
        _("At the end both models answer held-out rows; exact matches are counted. Without it only the losses are compared. "
          "Of tasks that write; others always answer every row."),
    ),
    Words(EvaluationSpec, "evaluation.rows", "evaluation", _("Rows to answer"), _("At most so many held-out rows, for each model.")),
    Words(
        EvaluationSpec, "evaluation.max_new_tokens", "evaluation", _("Longest answer"),
        _("In tokens. As long as your longest expected answer; shorter is faster."),
    ),
    Words(EvaluationSpec, "evaluation.samples", "evaluation", _("Samples to show"), _("Answers shown side by side on the run's page.")),
    Words(
        EvaluationSpec, "evaluation.retention", "evaluation", _("Measure forgetting"),
        _("Both models are measured on sixty short general texts, so that the run's page says what was lost. Takes seconds. "
          "Of models that write on, not of other tasks."),
    ),
    Words(
        ExportSpec, "export.merge", "export", _("Merged model"),
        _("The adapter is always kept. A merged model loads without PEFT and is measured again where its weights differ."),
        {
            "original": _("Into the original 16-bit weights: the usual choice, re-evaluated"),
            "dequantised": _("Into the dequantised 4-bit weights: faithful to what was trained (QLoRA)"),
            "both": _("Both"),
            "none": _("None: the adapter alone"),
        },
    ),
    Words(
        ExportSpec, "export.dtype", "export", _("Stored as"),
        _("How the weights of a merged or fully fine-tuned model are written. An adapter is not affected."),
        {
            "base": _("The base model's number type, usually 16-bit: half the size, rounds small updates away"),
            "float32": _("float32: exactly what was trained, twice the size"),
        },
    ),
    Words(
        TrainingSpec, "training.loss_on", "advanced", _("Learn from"),
        _("The answers, or every token of a row (for plain text)."),
        {"completion": _("The answers only"), "all": _("Every token")},
    ),
    Words(
        TrainingSpec, "training.batching", "advanced", _("Batching"),
        _("Packed puts several short rows into one sequence without letting them see each other; it wastes no memory on padding."),
        {"auto": _("Automatic"), "packed": _("Packed"), "padded": _("Padded")},
    ),
    Words(
        TrainingSpec, "training.micro_batch_tokens", "advanced", _("Micro-batch in tokens"),
        _("At most so many tokens in memory at once, in place of a number of rows; a step keeps its rows. Empty: by rows."),
    ),
    Words(
        TrainingSpec, "training.optimiser", "advanced", _("Optimiser"),
        _("AdamW is exact. In 8 bits its state takes a quarter of the memory, with Adafactor next to none."),
        {
            "adamw": "AdamW",
            "adamw_8bit": _("AdamW, 8-bit state"),
            "paged_adamw": _("AdamW, state paged to the host's memory (GPU)"),
            "paged_adamw_8bit": _("AdamW, 8-bit state paged to the host's memory (GPU)"),
            "adafactor": "Adafactor",
        },
    ),
    Words(
        TrainingSpec, "training.schedule_cycles", "advanced", _("Restarts: number of cycles"),
        _("How often the rate falls from its peak to zero, where the schedule is cosine with restarts."),
    ),
    Words(TrainingSpec, "training.weight_decay", "advanced", _("Weight decay"), _("Pull of the trained weights towards zero. 0 to 0.1.")),
    Words(TrainingSpec, "training.clip_norm", "advanced", _("Gradient clipping"), _("Largest norm of the gradient; 0 switches it off.")),
    Words(TrainingSpec, "training.max_steps", "advanced", _("Maximum steps"), _("Ends the training early. Empty: all epochs.")),
    Words(
        TrainingSpec, "training.evaluate_every_steps", "advanced", _("Validate every … steps"), _("Empty: chosen from the steps."),
    ),
    Words(
        TrainingSpec, "training.checkpoint_every_steps", "advanced", _("Checkpoint every … steps"),
        _("What a pause or a fault can lose at most. Empty: chosen from the steps."),
    ),
    Words(
        TrainingSpec, "training.gradient_checkpointing", "advanced", _("Recompute activations"),
        _("Gradient checkpointing: much less memory, about a third slower."),
    ),
    Words(RunSpec, "seed", "advanced", _("Seed"), _("The same data, settings and seed give the same loss curve.")),
)  # fmt: skip


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
        self.fields["task"].initial = lambda: first_fitting(self._row("base_model"), self._row("dataset_version"))
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
        chosen, model, version = self["task"].value(), self._row("base_model"), self._row("dataset_version")
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
        method, model, task = self.methods.get(str(self["method"].value())), self._row("base_model"), self["task"].value()
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
        model = self._row("base_model")
        return by_method(model.folder, self["task"].value()) if model else {}

    def _value(self, name: str) -> Any:
        """A field's value as it would be taken. Raises `ValidationError`."""
        return self.fields[name].clean(self[name].value())

    def _cards(self) -> list[MethodCard]:
        chosen, model, trained = self["method"].value(), self._row("base_model"), self.trained_by_method()
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

    def _row(self, name: str) -> Any:
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

    def parameters(self) -> dict[str, Any]:
        """The keyword arguments of `create_run` besides team and user."""
        data = self.cleaned_data
        method = self.methods[data["method"]]
        groups: dict[str, dict[str, Any]] = {"training": {}, "evaluation": {}, "export": {}}
        for words in FIELDS:
            group, _dot, name = words.path.partition(".")
            if group in groups:
                groups[group][name] = data[words.path.replace(".", "_")]
        given = {setting.name: data.get(setting_name(method, setting)) for setting in method.settings}
        return {
            "name": data["name"] or f"{data['dataset_version'].dataset.name}-{method.id}",
            "dataset_version": data["dataset_version"],
            "base_model": data["base_model"],
            "task": data["task"],
            "method": method.id,
            "settings": {name: value for name, value in given.items() if value not in (None, "")},
            "adapters": list(data.get("adapters") or ()),
            "seed": data["seed"],
            "validation_share": data["data_validation_share"],
            **groups,
        }

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
