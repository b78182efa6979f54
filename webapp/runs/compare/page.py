"""What the page that compares runs shows. Its link is its whole state: `run` (any number) or `experiment`, `base`, `all`, `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import QueryDict
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webapp.accounts.models import Team
from webapp.runs.compare.configuration import configuration
from webapp.runs.compare.fairness import findings
from webapp.runs.compare.results import machine, method_name, paper
from webapp.runs.compare.tables import Table, to_csv, to_latex, to_markdown
from webapp.runs.kinds import Kind
from webapp.runs.models import Run
from webapp.runs.states import TERMINAL, State

COLOURS = 8
DASHES = 4
OFFERED = 50
FORMATS = {"csv": "text/csv", "md": "text/markdown", "tex": "application/x-tex"}
METRICS = (
    ("loss", gettext_lazy("Training loss, smoothed")),
    ("eval", gettext_lazy("Validation loss")),
    ("learning_rate", gettext_lazy("Learning rate")),
    ("gradient_norm", gettext_lazy("Gradient norm, smoothed")),
    ("tokens_per_second", gettext_lazy("Tokens per second, smoothed")),
    ("memory", gettext_lazy("Memory")),
)


@dataclass(frozen=True)
class Entry:
    """One run of the comparison. Its place, from 1, gives colour and dash: the ninth run has the first's colour, and another dash."""

    place: int
    run: Run
    method: str
    without: str
    is_base: bool

    @property
    def colour(self) -> str:
        """The token of its colour."""
        return f"s{(self.place - 1) % COLOURS + 1}"

    @property
    def dash(self) -> int:
        """Which pattern its line has; 0 is unbroken."""
        return (self.place - 1) // COLOURS % DASHES


@dataclass(frozen=True)
class Comparison:
    """The runs of a link, in its order; `missing` are those of its names that are no run of the team (any more)."""

    team: Team
    asked: QueryDict
    runs: Sequence[Run]
    missing: int

    @property
    def baseline(self) -> Run | None:
        """The run that others are compared to, where one was chosen."""
        return next((run for run in self.runs if str(run.pk) == self.asked.get("base")), None)

    @property
    def entries(self) -> list[Entry]:
        """The runs with their places."""
        return [
            Entry(place, run, method_name(run), self.without(run), is_base=run == self.baseline) for place, run in enumerate(self.runs, 1)
        ]

    def without(self, run: Run) -> str:
        """The query of the same comparison less a run."""
        query = self.query()
        query.setlist("run", [str(each.pk) for each in self.runs if each != run])
        if query.get("base") == str(run.pk):
            del query["base"]
        return query.urlencode()

    def query(self, **changes: str) -> QueryDict:
        """The state of the page with changes; an empty value takes a name away. Runs stand in it one by one, however they were named."""
        query = QueryDict(mutable=True)
        query.setlist("run", [str(run.pk) for run in self.runs])
        for name in ("base", "all", "figures"):
            if value := changes.get(name, self.asked.get(name, "")):
                query[name] = value
        return query


def comparison(team: Team, asked: QueryDict) -> Comparison:
    """The comparison that a link names. What is no run of the team is left out and counted, and the team of another learns nothing."""
    rows = _rows(team)
    named = list(dict.fromkeys(filter(None, asked.getlist("run"))))
    ids = [found for name in named if (found := _uuid(name))]
    by_id = {run.pk: run for run in rows.filter(pk__in=ids)} if ids else {}
    runs = [by_id[each] for each in ids if each in by_id]
    missing = len(named) - len(runs)
    if experiment := _uuid(asked.get("experiment", "")):
        runs += [run for run in rows.filter(experiment=experiment).order_by("created_at", "pk") if run.pk not in by_id]
    return Comparison(team, asked, runs, missing)


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _rows(team: Team) -> QuerySet[Run]:
    return team.runs.exclude(kind=Kind.ANALYSE).select_related("base_model", "dataset_version__dataset", "created_by")


def page_of(found: Comparison) -> dict[str, Any]:
    """The context of the page."""
    everything, every_figure = bool(found.asked.get("all")), bool(found.asked.get("figures"))
    entries, told = found.entries, configuration(found.runs, everything=everything)
    table = paper(found.runs, found.baseline, every_figure=every_figure)
    moving = any(run.state not in TERMINAL | {State.PAUSED} for run in found.runs)
    return {
        "entries": entries,
        "missing": found.missing,
        "baseline": found.baseline,
        "heads": table.heads[2:],
        "results": [(entry, row[2:]) for entry, row in zip(entries, table.rows, strict=True)],
        "configuration": told,
        "everything": everything,
        "every_figure": every_figure,
        "findings": findings(found.runs),
        "moving": moving,
        "link": found.query().urlencode(),
        "link_all": found.query(all="" if everything else "1").urlencode(),
        "link_figures": found.query(figures="" if every_figure else "1").urlencode(),
        "exports": _exports(found, table),
        **offered(found),
        "metrics": METRICS,
        "charts": _charts(entries, moving=moving),
    }


def offered(found: Comparison) -> dict[str, Any]:
    """The newest runs that can be added, of which `?find=` names some."""
    words = found.asked.get("find", "").strip()
    rows = _rows(found.team).exclude(pk__in=[run.pk for run in found.runs]).order_by("-created_at")
    for word in words.split():
        rows = rows.filter(name__icontains=word)
    return {"find": words, "offered": list(rows[:OFFERED])}


def _exports(found: Comparison, table: Table) -> list[dict[str, str]]:
    """Link and, of those that are pasted, text of each form of the table."""
    names = {"csv": "CSV", "md": "Markdown", "tex": "LaTeX"}
    query = found.query().urlencode()
    return [
        {
            "form": form,
            "name": name,
            "href": f"{reverse('runs:compare-export', args=[found.team.slug, form])}?{query}",
            "text": "" if form == "csv" else _written(found, form, table),
        }
        for form, name in names.items()
    ]


def export(found: Comparison, form: str) -> str:
    """The table of results in one of `FORMATS`."""
    return _written(found, form, paper(found.runs, found.baseline, every_figure=bool(found.asked.get("figures"))))


def _written(found: Comparison, form: str, table: Table) -> str:
    if form == "csv":
        return to_csv(machine(found.runs))
    if form == "md":
        return to_markdown(table)
    return to_latex(table, caption_of(found.runs), f"{found.team.slug} {_('runs')}")


def caption_of(runs: Sequence[Run]) -> str:
    """What the runs have in common, as the caption of their table."""
    data, bases = sorted({str(run.dataset_version) for run in runs}), sorted({run.base_model.name for run in runs})
    said = {"data": ", ".join(data), "base": ", ".join(bases)}
    return _("Results on %(data)s with %(base)s. Ranges are 95%% intervals (Wilson) over held-out rows.") % said


def _charts(entries: Sequence[Entry], *, moving: bool) -> dict[str, Any]:
    """What the script draws: where each run's curves are, and how its lines look."""
    return {
        "runs": [
            {
                "label": f"{entry.place} {entry.run.name}",
                "url": reverse("runs:series", args=[entry.run.pk]),
                "colour": entry.colour,
                "dash": entry.dash,
            }
            for entry in entries
        ],
        "moving": moving,
        "axes": {"step": _("step"), "epoch": _("epoch"), "tokens": _("tokens"), "seconds": _("time")},
    }
