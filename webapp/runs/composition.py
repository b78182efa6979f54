"""What the page of a composition shows besides a run's: of which adapters it was made and how, and what was lost on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy

from jobs.composition.combinations import COMBINATIONS
from jobs.composition.spec import EVENT, PART
from webapp.core import formats
from webapp.runs.kinds import Kind
from webapp.runs.layers import last_told
from webapp.runs.models import Run
from webapp.runs.services.compositions import parts_of

LABELS = {
    "rank": gettext_lazy("Rank"),
    "modules": gettext_lazy("Adapted modules"),
    "blocks": gettext_lazy("Blocks"),
    "density": gettext_lazy("Density"),
    "seed": gettext_lazy("Seed"),
}


@dataclass(frozen=True)
class Part:
    """One adapter: its run, where that is still there, its name when it was composed, and its weight."""

    name: str
    weight: float
    run: Run | None


def shown(run: Run) -> dict[str, Any]:
    """The context of the section; nothing for a run that composes nothing."""
    if run.kind != Kind.COMPOSE:
        return {"composed": None}
    facts = (last_told(run, EVENT) or {}).get("facts") or {}
    combination = COMBINATIONS[run.spec["combination"]]
    given = {
        "density": run.spec["density"] if combination.prunes else None,
        "seed": run.spec["seed"] if combination.draws else None,
    }
    return {
        "composed": combination,
        "parts": _parts(run),
        "made": [(str(label), _figure(value)) for name, label in LABELS.items() if (value := {**given, **facts}.get(name)) is not None],
        "lost": facts.get("lost") if combination.of == "update" else None,
        "conflict_share": facts.get("conflict_share"),
        "conflicts": facts.get("conflicts"),
    }


def labels(run: Run) -> dict[str, Any]:
    """How the models of a composition's `eval` events are called: its parts by name, and what was made of them."""
    parts = {PART.format(number=number): name for number, (_run, name, _weight) in enumerate(parts_of(run), 1)}
    return {"base": gettext_lazy("Base model"), **parts, "tuned": gettext_lazy("Combined")}


def _parts(run: Run) -> list[Part]:
    parts = parts_of(run)
    there = Run.objects.filter(team=run.team_id).select_related("dataset_version__dataset").defer("spec", "summary")
    runs = there.in_bulk([run_id for run_id, _, _ in parts])
    return [Part(name, weight, runs.get(run_id)) for run_id, name, weight in parts]


def _figure(value: float) -> str:
    return formats.format_number(value) if isinstance(value, int) else formats.format_rate(value)
