"""Forms of people and teams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.utils.translation import gettext_lazy as _

from webapp.accounts.access import ACTIONS, rank
from webapp.accounts.models import Role, User

# Generic for the type checker alone.
if TYPE_CHECKING:
    _UserForm = UserCreationForm[User]
else:
    _UserForm = UserCreationForm


class RoleForm(forms.Form):
    """A role, of those not above the person's own."""

    role = forms.ChoiceField(label=_("Role"), choices=Role.choices, initial=Role.MEMBER)

    def __init__(self, *args: Any, own: Role, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        field = self.fields["role"]
        assert isinstance(field, forms.ChoiceField)  # noqa: S101 - for the type checker
        field.choices = [(role.value, role.label) for role in ACTIONS if rank(role) <= rank(own)]

    def chosen(self) -> Role:
        """The chosen role of a valid form."""
        return Role(self.cleaned_data["role"])


class TeamForm(forms.Form):
    """A new team."""

    name = forms.CharField(label=_("Name"), max_length=80, help_text=_("Its address is made from the name."))


class SignUpForm(_UserForm):
    """A new account, made by following an invitation."""

    class Meta:
        model = User
        fields = ("username",)
