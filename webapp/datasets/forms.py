"""Forms of datasets: new files, and the mapping of columns to a layout."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, cast

from django import forms
from django.forms import BoundField
from django.http import QueryDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from jobs.data.formats import FIELDS, KEYS_WITHIN, NO_INSTRUCTION, check_mapping
from jobs.errors import UserError
from jobs.spec import Format, Mapping
from webapp.datasets.mapping import FIELD_NAMES, LAYOUTS, columns_of, mappings_of, recognised_mapping
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.services.create_dataset import SPLITS
from webapp.datasets.services.start_validation import Choices

SPLIT_NAMES = {"train": _("Training file"), "validation": _("Validation file"), "test": _("Test file")}
SPLIT_HELP = {
    "train": _("JSONL, JSON, CSV, TSV, Parquet or plain text; each may be gzipped."),
    "validation": _("Without one, a share of the training rows is set aside."),
    "test": _("Measured before and after training. Without one, the validation rows are."),
}
# What an untouched key of a turn is, where the form shows no suggestion.
KEY_DEFAULTS = {"from": "from", "value": "value"}
NAME_LENGTH = 120


class FilesForm(forms.Form):
    """The files of a version: each comes with the form itself, or has been uploaded before and is named by its id."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for split in SPLITS:
            self.fields[f"{split}_file"] = forms.FileField(
                label=SPLIT_NAMES[split], help_text=SPLIT_HELP[split], required=False, allow_empty_file=True
            )
            self.fields[f"{split}_upload"] = forms.UUIDField(required=False, widget=forms.HiddenInput)

    def clean(self) -> dict[str, Any]:
        """A training file must be there, one way or the other."""
        cleaned = super().clean() or {}
        if not cleaned.get("train_file") and not cleaned.get("train_upload") and "train_upload" not in self.errors:
            self.add_error("train_file", gettext("Choose a file."))
        return cleaned

    def splits(self) -> Iterator[dict[str, Any]]:
        """For the template: name, file field and hidden field of each split."""
        for split in SPLITS:
            yield {"name": split, "file": self[f"{split}_file"], "upload": self[f"{split}_upload"], "required": split == "train"}

    def refuse(self, error: UserError) -> None:
        """Puts an error at the field that it names."""
        field = error.where.get("field")
        self.add_error(f"{field}_file" if field in SPLITS else field if field in self.fields else None, f"{error.message} {error.remedy}")


class DatasetForm(FilesForm):
    """A new dataset: a name, and the files of its first version."""

    name = forms.CharField(label=_("Name"), max_length=NAME_LENGTH)


# Generic for the type checker alone.
if TYPE_CHECKING:
    _DescriptionForm = forms.ModelForm[Dataset]
else:
    _DescriptionForm = forms.ModelForm


class DescriptionForm(_DescriptionForm):
    """What people say of a dataset."""

    class Meta:
        model = Dataset
        fields = ("name", "description", "licence")
        labels: ClassVar = {"name": _("Name"), "description": _("Description"), "licence": _("Licence")}
        help_texts: ClassVar = {
            "description": _("Where the rows come from, and what they are for."),
            "licence": _("Under which the rows may be used, such as CC-BY-4.0, or: internal."),
        }
        widgets: ClassVar = {"description": forms.Textarea(attrs={"rows": 4})}

    def clean_name(self) -> str:
        """A name that no other dataset of the team has."""
        name = str(self.cleaned_data["name"]).strip()
        if Dataset.objects.filter(team=self.instance.team, name=name).exclude(pk=self.instance.pk).exists():
            raise forms.ValidationError(str(UserError("dataset_name_taken", name=name).message))
        return name


class MappingForm(forms.Form):
    """Which layout, which columns, what is set aside. Every layout has its own fields, named `<layout>.<field>`."""

    format = forms.ChoiceField(label=_("Layout"), choices=[(key, words.name) for key, words in LAYOUTS.items()])
    instruction = forms.CharField(
        label=_("Instruction"),
        required=False,
        widget=forms.Textarea(attrs={"rows": 2}),
        help_text=_("Put before the text of a labelled row; the system message of chats that have none."),
    )
    validation_percent = forms.FloatField(
        label=_("Validation rows, %"), min_value=0, max_value=50, initial=5, help_text=_("Set aside from training, chosen by the seed.")
    )
    test_percent = forms.FloatField(
        label=_("Test rows, %"), min_value=0, max_value=50, initial=0, help_text=_("Set aside as well, and measured at the end.")
    )
    seed = forms.IntegerField(label=_("Seed"), min_value=0, max_value=2**31 - 1, initial=0, help_text=_("The same seed, the same rows."))
    skip_bad_rows = forms.BooleanField(
        label=_("Skip rows that cannot be used"), required=False, help_text=_("They are counted and listed in the report.")
    )

    def __init__(self, data: QueryDict | None = None, *, version: DatasetVersion) -> None:
        self.version = version
        self.columns = columns_of(version)
        super().__init__(data, initial=_initial(version))
        for layout in LAYOUTS:
            required, optional = FIELDS[layout]
            for field in (*required, *optional):
                self.fields[f"{layout}.{field}"] = self._column_field(field, needed=field in required)
        if version.validation_upload_id:
            del self.fields["validation_percent"]
        if version.test_upload_id:
            del self.fields["test_percent"]

    def _column_field(self, field: str, *, needed: bool) -> forms.Field:
        if field in KEYS_WITHIN:
            return forms.CharField(label=FIELD_NAMES[field], required=False, max_length=100)
        nothing = [("", "-" if needed else _("(none)"))]
        return forms.ChoiceField(
            label=FIELD_NAMES[field], required=False, choices=[*nothing, *((column, column) for column in self.columns)]
        )

    def layouts(self) -> Iterator[dict[str, Any]]:
        """For the template: each layout with its words and fields, and whether it takes an instruction."""
        for layout, words in LAYOUTS.items():
            fields: list[BoundField] = [self[name] for name in self.fields if name.startswith(f"{layout}.")]
            yield {"id": layout, "words": words, "fields": fields, "instruction": layout not in NO_INSTRUCTION}

    def mapping(self) -> Mapping:
        """The mapping of a form whose fields are valid. Raises `UserError("mapping_invalid")`."""
        layout = cast("Format", self.cleaned_data["format"])
        names = (*FIELDS[layout][0], *FIELDS[layout][1])
        columns = {field: self.cleaned_data.get(f"{layout}.{field}") or "" for field in names}
        instruction = "" if layout in NO_INSTRUCTION else self.cleaned_data["instruction"].strip()
        return Mapping(layout, {field: column for field, column in columns.items() if column}, instruction)

    def clean(self) -> dict[str, Any]:
        """The columns of the chosen layout must make a mapping, and something must be left to train on."""
        cleaned = super().clean() or {}
        if "format" in cleaned:
            try:
                check_mapping(self.mapping(), self.columns)
            except UserError as error:
                field = f"{cleaned['format']}.{str(error.where.get('field', '')).rpartition('.')[2]}"
                self.add_error(field if field in self.fields else None, f"{error.message} {error.remedy}")
        if cleaned.get("validation_percent", 0) + cleaned.get("test_percent", 0) > 90:
            self.add_error(None, gettext("Too few rows would be left to train on."))
        return cleaned

    def choices(self) -> Choices:
        """What a valid form says."""
        return Choices(
            mapping=self.mapping(),
            skip_bad_rows=self.cleaned_data["skip_bad_rows"],
            validation_share=self.cleaned_data.get("validation_percent", 0) / 100,
            test_share=self.cleaned_data.get("test_percent", 0) / 100,
            seed=self.cleaned_data["seed"],
        )


def _initial(version: DatasetVersion) -> dict[str, Any]:
    initial: dict[str, Any] = {
        "validation_percent": f"{version.validation_share * 100:g}",
        "test_percent": f"{version.test_share * 100:g}",
        "seed": version.seed,
        "skip_bad_rows": version.skip_bad_rows,
    }
    initial |= {f"{layout}.{key}": value for layout in LAYOUTS for key, value in KEY_DEFAULTS.items() if key in FIELDS[layout][1]}
    for body in reversed(mappings_of(version)):
        initial |= {f"{body['format']}.{field}": column for field, column in body["columns"].items()}
    mapping = recognised_mapping(version)
    if mapping is not None:
        initial |= {"format": mapping.format, "instruction": mapping.instruction}
        initial |= {f"{mapping.format}.{field}": column for field, column in mapping.columns.items()}
    return initial
