"""The form by which a training is extended: how many epochs, and what that comes to."""

from __future__ import annotations

from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from jobs.errors import UserError
from webapp.runs.models import Run
from webapp.runs.services.extend import MOST_EPOCHS, Extension, extension


class ExtendForm(forms.Form):
    """`epochs` more than now; part epochs are allowed."""

    epochs = forms.FloatField(
        label=_("More epochs"), min_value=0.001, max_value=MOST_EPOCHS, initial=1, help_text=_("Part epochs such as 0.5 are allowed.")
    )

    def __init__(self, run: Run, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.run = run

    def clean(self) -> dict[str, Any]:
        """Raises a `ValidationError` at the field where the run cannot be extended by so much."""
        cleaned: dict[str, Any] = super().clean() or {}
        if "epochs" in cleaned:
            try:
                extension(self.run, cleaned["epochs"])
            except UserError as error:
                self.add_error("epochs", error.message)
        return cleaned

    @property
    def comes_to(self) -> Extension | None:
        """What the number that stands in the form comes to; None where it is wrong."""
        epochs = self.cleaned_data.get("epochs") if self.is_bound and self.is_valid() else None
        if self.is_bound and epochs is None:
            return None
        try:
            return extension(self.run, epochs or float(self["epochs"].initial))
        except UserError:
            return None
