"""Forms of base models."""

from __future__ import annotations

from django import forms
from django.utils.translation import gettext_lazy as _


class HubForm(forms.Form):
    """A model of the Hugging Face Hub by its name."""

    repository = forms.CharField(
        label=_("Name on the Hub"), max_length=200, help_text=_("Such as HuggingFaceTB/SmolLM2-360M-Instruct. Safetensors only.")
    )
    revision = forms.CharField(
        label=_("Revision"), max_length=64, required=False, help_text=_("A branch, tag or commit; the newest without one.")
    )
