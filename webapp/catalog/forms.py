"""Forms of base models: one for each way of adding one, and the licence."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.core.files.uploadedfile import UploadedFile
from django.http import QueryDict
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from webapp.catalog.services.add_from_folder import Candidate

NAME_LENGTH = 120


class AddForm(forms.Form):
    """What the ways of adding a model have in common."""

    def refuse(self, error: UserError) -> None:
        """Puts an error at the field that it names."""
        field = error.where.get("field")
        self.add_error(field if field in self.fields else None, f"{error.message} {error.remedy}")


class HubForm(AddForm):
    """A model of the Hugging Face Hub by its name."""

    repository = forms.CharField(
        label=_("Name on the Hub"), max_length=200, help_text=_("Such as HuggingFaceTB/SmolLM2-360M-Instruct. Safetensors only.")
    )
    revision = forms.CharField(
        label=_("Revision"),
        max_length=64,
        required=False,
        help_text=_("A branch, tag or commit; the newest without one. The model stays at the commit that it is now."),
    )


class FolderForm(AddForm):
    """A folder of the host, one of those that were found."""

    path = forms.ChoiceField(label=_("Folder"), help_text=_("Folders with a config.json below those that the administrator has opened."))
    name = forms.CharField(label=_("Name"), max_length=NAME_LENGTH, required=False, help_text=_("That of the folder without one."))

    def __init__(self, data: QueryDict | None = None, *, candidates: list[Candidate]) -> None:
        super().__init__(data)
        self.labels = {str(one.path): one.label for one in candidates}
        cast("forms.ChoiceField", self.fields["path"]).choices = list(self.labels.items())

    def clean(self) -> dict[str, Any]:
        """A model without a name is called as its folder."""
        cleaned = super().clean() or {}
        path = cleaned.get("path")
        if path and not cleaned.get("name"):
            cleaned["name"] = self.labels[path].rpartition("/")[2][:NAME_LENGTH]
        return cleaned


class _SeveralFiles(forms.ClearableFileInput):
    allow_multiple_selected = True


class _FilesField(forms.FileField):
    """Any number of files, none of them too."""

    def clean(self, data: Any, initial: Any = None) -> list[UploadedFile[Any]]:
        """Raises `ValidationError` where one of them is empty or has no name that can be used."""
        return [super(_FilesField, self).clean(file, initial) for file in data or ()]


class UploadForm(AddForm):
    """Files of a model: sent with the form itself, or uploaded before and named by their ids (`uploads`, several)."""

    name = forms.CharField(label=_("Name"), max_length=NAME_LENGTH)
    model_files = _FilesField(
        label=_("Files of the model"),
        required=False,
        widget=_SeveralFiles,
        help_text=_("One zip archive, or config.json, tokenizer.json, tokenizer_config.json and *.safetensors together."),
    )

    def clean_model_files(self) -> dict[str, UploadedFile[Any]]:
        """The files that came with the form, by name. Raises `ValidationError` where two have one name."""
        found: list[UploadedFile[Any]] = self.cleaned_data["model_files"]
        named = {str(file.name): file for file in found}
        if len(named) != len(found):
            raise forms.ValidationError(gettext("Two of the files have the same name."))
        return named


class LicenceForm(forms.Form):
    """The licence of a model, as its team has read it."""

    licence = forms.CharField(
        label=_("Licence"),
        max_length=80,
        required=False,
        help_text=_("Its short name, such as Apache-2.0; written into the card of results."),
    )
