"""Form fields drawn from the contract: types, bounds and defaults come from `jobs.spec` and the method catalogue, never typed twice.

A field's name is its place in the spec with underscores: `training.epochs` is `training_epochs`; a setting of a method is
`settings_<method>_<setting>`.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from django import forms
from pydantic.fields import FieldInfo

from jobs.methods.entry import Method, Setting
from jobs.methods.ranks import EXAMPLE


def spec_field(spec_class: type[Any], name: str, *, label: str, help_text: str, choices: dict[str, str] | None = None) -> forms.Field:
    """A form field for one field of a spec dataclass. `choices` gives the words of a Literal's values, in the order shown."""
    kind, bounds, optional = _kind(get_type_hints(spec_class, include_extras=True)[name])
    initial = _default({field.name: field for field in fields(spec_class)}[name])
    common: dict[str, Any] = {"label": label, "help_text": help_text, "initial": initial, "required": not optional}
    if get_origin(kind) is Literal:
        words = choices or {}
        return forms.ChoiceField(
            choices=[(value, words.get(value, value)) for value in sorted(get_args(kind), key=_order(words))], **common
        )
    if kind is bool:
        return forms.BooleanField(**{**common, "required": False})
    if kind is int:
        return forms.IntegerField(min_value=_bound(bounds, "ge"), max_value=_bound(bounds, "le"), **common)
    return _float_field(bounds, common)


def setting_field(setting: Setting) -> forms.Field:
    """A form field for one setting of a method. An empty one means the default."""
    common: dict[str, Any] = {"label": setting.label, "help_text": setting.help, "initial": setting.default, "required": False}
    if setting.type == "choice":
        return forms.ChoiceField(choices=[(value, value) for value in setting.choices], **common)
    if setting.type == "bool":
        return forms.BooleanField(**common)
    if setting.type == "int":
        low, high = (None if bound is None else int(bound) for bound in (setting.minimum, setting.maximum))
        return forms.IntegerField(min_value=low, max_value=high, **common)
    if setting.type == "float":
        return _float_field([("ge", setting.minimum), ("le", setting.maximum)], common)
    if setting.type == "ranks":
        # A line for each layer of a large model; what a line must be is checked with the setting.
        lines = forms.Textarea(attrs={"rows": 4, "class": "mono", "spellcheck": "false", "placeholder": EXAMPLE})
        field = forms.CharField(max_length=100_000, widget=lines, **common)
        field.wide = True  # type: ignore[attr-defined]  # as the template draws it
        return field
    return forms.CharField(max_length=400, **common)


def setting_name(method: Method, setting: Setting) -> str:
    """The form's name of a method's setting."""
    return f"settings_{method.id}_{setting.name}"


def _float_field(bounds: list[tuple[str, Any]], common: dict[str, Any]) -> forms.FloatField:
    # An open bound (0 < rate) cannot be said to the browser; `RunSpec` refuses it with the field's name.
    return forms.FloatField(
        min_value=_bound(bounds, "ge"),
        max_value=_bound(bounds, "le"),
        widget=forms.NumberInput(attrs={"step": "any", "inputmode": "decimal"}),
        **common,
    )


def _kind(hint: Any) -> tuple[Any, list[tuple[str, Any]], bool]:
    """The bare type of a hint, its bounds, and whether it may be None."""
    if get_origin(hint) in (Union, UnionType):
        inner = next(part for part in get_args(hint) if part is not NoneType)
        kind, bounds, _ = _kind(inner)
        return kind, bounds, True
    if get_origin(hint) is Annotated:
        bare, *notes = get_args(hint)
        constraints = [note for info in notes if isinstance(info, FieldInfo) for note in info.metadata]
        return bare, [(slot, value) for note in constraints for slot, value in _bounds_of(note)], False
    return hint, [], False


def _bounds_of(note: Any) -> list[tuple[str, Any]]:
    """The bounds that an `annotated_types` constraint holds: `Ge(ge=1)` gives `[("ge", 1)]`."""
    return [(slot, getattr(note, slot)) for slot in ("ge", "le", "gt", "lt") if hasattr(note, slot)]


def _bound(bounds: list[tuple[str, Any]], slot: str) -> Any:
    return next((value for name, value in bounds if name == slot), None)


def _default(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default


def _order(words: dict[str, str]) -> Any:
    known = list(words)
    return lambda value: known.index(value) if value in known else len(known)
