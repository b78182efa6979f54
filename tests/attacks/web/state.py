"""What a site holds, so that a test can say: nothing happened."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import serializers
from django.db.models import Model

# What a look at a page may write: that somebody was here.
_COMES_AND_GOES = {"sessions.session", "usersessions.usersession"}


def state(*, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Every row of every model, and every file below `var` with its content's digest. `without`: models, as `runs.run`."""
    rows = {
        label: serializers.serialize("json", model._default_manager.order_by("pk"), fields=_fields(model))
        for model in apps.get_models()
        if (label := model._meta.label_lower) not in _COMES_AND_GOES | without
    }
    var = Path(settings.GRAFT_VAR)
    files = {str(path.relative_to(var)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(var.rglob("*")) if path.is_file()}
    return {**rows, "files": files}


def _fields(model: type[Model]) -> list[str]:
    """All but the moment of a person's last sign-in."""
    return [field.name for field in (*model._meta.fields, *model._meta.many_to_many) if field.name != "last_login"]


def changed(before: dict[str, Any]) -> list[str]:
    """What is not as it was, by name."""
    after = state()
    return [name for name in before if after[name] != before[name]]
