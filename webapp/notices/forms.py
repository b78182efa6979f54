"""Forms of notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django import forms
from django.utils.translation import gettext_lazy as _

from webapp.core.outbound import URL_LENGTH
from webapp.notices.models import Preference, Webhook

# Generic for the type checker alone.
if TYPE_CHECKING:
    _PreferenceForm = forms.ModelForm[Preference]
else:
    _PreferenceForm = forms.ModelForm


class PreferenceForm(_PreferenceForm):
    """Of what a person is told."""

    class Meta:
        model = Preference
        fields = ("runs", "ended", "failed", "email")
        labels = {
            "runs": _("Tell me of"),
            "ended": _("that have succeeded or were cancelled"),
            "failed": _("that have failed"),
            "email": _("by e-mail"),
        }


class WebhookForm(forms.Form):
    """A new webhook."""

    url = forms.CharField(
        label=_("Address"),
        max_length=URL_LENGTH,
        widget=forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "placeholder": "https://"}),
        help_text=_("It gets a POST with JSON, signed by Standard Webhooks."),
    )
    style = forms.ChoiceField(label=_("Form of the messages"), choices=Webhook.Style.choices, initial=Webhook.Style.GRAFT, required=False)
    ended = forms.BooleanField(label=_("when a run has succeeded or was cancelled"), required=False, initial=True)
    failed = forms.BooleanField(label=_("when a run has failed"), required=False, initial=True)

    def clean(self) -> dict[str, object]:
        """One of the two events at least."""
        data = super().clean() or {}
        data["style"] = data.get("style") or Webhook.Style.GRAFT
        if not data.get("ended") and not data.get("failed"):
            self.add_error("ended", _("Choose one of the two at least."))
        return data
