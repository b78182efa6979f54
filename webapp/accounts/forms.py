"""Forms of people and teams."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from django import forms
from django.conf import settings
from django.contrib.auth.forms import UserCreationForm
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from webapp.accounts.access import ACTIONS, rank
from webapp.accounts.audit_actions import Action
from webapp.accounts.models import Role, User
from webapp.accounts.scopes import Scope
from webapp.accounts.services.audit import Wanted

# Generic for the type checker alone.
if TYPE_CHECKING:
    _UserForm = UserCreationForm[User]
    _ProfileForm = forms.ModelForm[User]
else:
    _UserForm = UserCreationForm
    _ProfileForm = forms.ModelForm


class RoleForm(forms.Form):
    """A role, of those not above the person's own."""

    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.MEMBER)

    def __init__(self, *args: Any, own: Role, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["role"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        field.choices = [(role.value, role.label) for role in ACTIONS if rank(role) <= rank(own)]
        field.error_messages["invalid_choice"] = _("You cannot give that role.")

    def chosen(self) -> Role:
        """The chosen role of a valid form."""
        return Role(self.cleaned_data["role"])


class InviteForm(RoleForm):
    """Whom to invite, and as what."""

    email = forms.EmailField(label=_("E-mail address (optional)"), required=False)

    field_order = ("email", "role")


class TeamForm(forms.Form):
    """A team's name."""

    name = forms.CharField(label=_("Name"), max_length=80)


class ConfirmForm(forms.Form):
    """Asks for a name to be typed (`expected`) before something that cannot be undone."""

    confirm = forms.CharField(widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}))

    def __init__(self, *args: Any, expected: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expected = expected
        self.fields["confirm"].label = _("Type %(name)s to confirm") % {"name": expected}

    def clean_confirm(self) -> str:
        """Refuses any other text."""
        typed = str(self.cleaned_data["confirm"]).strip()
        if typed != self.expected.strip():
            raise forms.ValidationError(_("Nothing was done: this is not the name. Type %(name)s exactly."), params={"name": self.expected})
        return typed


class SignUpForm(_UserForm):
    """A new account, made by following an invitation."""

    class Meta:
        model = User
        fields = ("username", "email")


class ProfileForm(_ProfileForm):
    """How the pages speak to a person."""

    language = forms.ChoiceField(label=_("Language"), required=False)
    time_zone = forms.ChoiceField(label=_("Time zone"), required=False)

    class Meta:
        model = User
        fields = ("language", "time_zone")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        languages, zones = self.fields["language"], self.fields["time_zone"]
        assert isinstance(languages, forms.ChoiceField)  # noqa: S101 - for the type checker
        assert isinstance(zones, forms.ChoiceField)  # noqa: S101 - for the type checker
        languages.choices = [("", _("As the browser asks")), *settings.LANGUAGES]
        zones.choices = [
            ("", _("As the browser's clock")),
            *((name, name.replace("_", " ")) for name in sorted(zoneinfo.available_timezones())),
        ]


class TokenForm(forms.Form):
    """A new API token."""

    LASTING = ((30, _("30 days")), (90, _("90 days")), (365, _("1 year")), (0, _("Until it is revoked")))

    name = forms.CharField(label=_("Name"), max_length=80, help_text=_("What uses it, such as: nightly evaluation."))
    days = forms.TypedChoiceField(label=_("Expires after"), choices=LASTING, coerce=int, initial=90)
    scope = forms.MultipleChoiceField(
        label=_("May"), choices=Scope.choices, widget=forms.CheckboxSelectMultiple, error_messages={"required": _("Choose at least one.")}
    )

    def scopes(self) -> list[Scope]:
        """The chosen scopes of a valid form."""
        return [Scope(value) for value in self.cleaned_data["scope"]]

    def days_or_none(self) -> int | None:
        """How long it holds; None for ever."""
        return self.cleaned_data["days"] or None


class AuditForm(forms.Form):
    """Which events of the log are shown: all fields may stay empty; `start` and `end` are days, both included."""

    person = forms.ChoiceField(label=_("Person"), required=False)
    action = forms.ChoiceField(label=_("Action"), required=False, choices=[("", _("Any")), *Action.choices])
    start = forms.DateField(label=_("From"), required=False, widget=forms.DateInput(attrs={"type": "date", "class": "input"}))
    end = forms.DateField(label=_("To"), required=False, widget=forms.DateInput(attrs={"type": "date", "class": "input"}))

    def __init__(self, *args: Any, people: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["person"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        field.choices = [("", _("Anybody")), *((name, name) for name in people)]

    def wanted(self) -> Wanted:
        """What a valid form asks for; from an invalid one, what of it is valid."""
        self.is_valid()
        given = self.cleaned_data
        end = given.get("end")
        return Wanted(
            person=given.get("person", ""),
            action=given.get("action", ""),
            start=_midnight(given.get("start")),
            end=_midnight(end + timedelta(days=1) if end else None),
        )


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else timezone.make_aware(datetime.combine(day, time.min))
