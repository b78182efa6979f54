"""Tags of what comes of what (`{% load descent %}`), for pages of apps below this one too: the lineage of a thing, and of a base model
on which worker it fits and the runs that used it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django import template
from django.template import Context

from webapp.accounts.models import Team
from webapp.artifacts.services.fit import fit_of
from webapp.artifacts.services.lineage import Thing, lineage, size
from webapp.catalog.models import BaseModel
from webapp.runs.models import Run

register = template.Library()
RUNS_SHOWN = 20


@register.inclusion_tag("artifacts/_lineage.html", takes_context=True, name="lineage")
def lineage_tag(context: Context, thing: Thing) -> dict[str, Any]:
    """`{% lineage thing %}`: the tree of a base model, dataset version, run or artifact, in the team of the page."""
    team: Team | None = context.get("team")
    root = lineage(team, thing) if team else None
    return {"root": root, "alone": root is None or size(root) == 1, "team": team}


@register.inclusion_tag("artifacts/_fit.html")
def fit(model: BaseModel) -> dict[str, Any]:
    """`{% fit model %}`: on which worker it fits, by method."""
    return {"fit": fit_of(model), "model": model}


@register.inclusion_tag("artifacts/_runs_of_model.html", takes_context=True)
def runs_of(context: Context, model: BaseModel) -> dict[str, Any]:
    """`{% runs_of model %}`: the newest runs of the page's team that started from a base model."""
    team: Team | None = context.get("team")
    rows = Run.objects.filter(team=team, base_model=model).select_related("created_by", "dataset_version__dataset")
    shown = rows.defer("spec", "summary", "dataset_version__report", "dataset_version__sniffed").order_by("-created_at")[:RUNS_SHOWN]
    query = urlencode({"q": f'model:"{model.name}"'})
    return {"runs": shown, "count": rows.count(), "team": team, "query": query}


@register.filter
def count_of(counts: Mapping[UUID, int], key: UUID) -> int:
    """How many there are for a key, 0 where it is absent."""
    return counts.get(key, 0)
