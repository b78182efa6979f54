"""The names of the environment variables that a site reads, as `Environment` declares them."""

from __future__ import annotations

from webapp.settings.env import Environment


def settings_names() -> set[str]:
    names = set()
    for name, field in Environment.model_fields.items():
        alias = field.validation_alias
        names |= set(alias.choices) if alias is not None else {f"GRAFT_{name.upper()}"}
    return names
