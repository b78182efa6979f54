"""Why figures of some runs may not be compared: what should be the same for all of them and is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from webapp.runs.models import Run


@dataclass(frozen=True)
class Finding:
    """One thing that differs: what, why it matters, and which runs (by their places, from 1) have which value."""

    id: str
    label: str
    why: str
    groups: Sequence[tuple[str, Sequence[int]]]


@dataclass(frozen=True)
class Check:
    """`value` gives what should be equal, as words; empty where it is not known of a run, which then does not count."""

    id: str
    label: Any
    why: Any
    value: Callable[[Run], str]


def _plan(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = run.summary.get("plan") or {}
    return found


def _template(run: Run) -> str:
    told = run.base_model.facts.get("chat_template")
    if told is None:
        return ""
    has = _("chat template of %(model)s") if told else _("%(model)s has no chat template")
    return has % {"model": run.base_model.name}


def _asked(run: Run) -> str:
    plan, evaluation = _plan(run), run.spec.get("evaluation") or {}
    rows = plan.get("test_rows") or plan.get("validation_rows")
    if not rows:
        return ""
    return _("%(rows)s rows, answers to at most %(asked)s") % {"rows": rows, "asked": evaluation.get("rows", rows)}


def _seed(run: Run) -> str:
    return str(run.spec.get("seed", ""))


CHECKS = (
    Check(
        "data", gettext_lazy("Dataset version"),
        gettext_lazy("They learnt from, or were measured on, other rows: neither loss nor accuracy can be compared."),
        lambda run: str(run.dataset_version),
    ),
    Check(
        "base", gettext_lazy("Base model"),
        gettext_lazy("Losses of models with other tokenizers are of other tokens."),
        lambda run: f"{run.base_model.name} {run.base_model.revision[:7]}".strip(),
    ),
    Check(
        "template", gettext_lazy("Template"),
        gettext_lazy("The same row is another text to the model, so that losses are of other tokens."),
        _template,
    ),
    Check(
        "task", gettext_lazy("Task"), gettext_lazy("Figures of other tasks are other figures."),
        lambda run: run.spec.get("task", "causal_lm"),
    ),
    Check(
        "rows", gettext_lazy("Held-out rows"),
        gettext_lazy("They were asked other questions, or another number of them."),
        _asked,
    ),
    Check(
        "seed", gettext_lazy("Seed"),
        gettext_lazy("A small difference may be that of the seeds. Run each method over several, as an experiment does."),
        _seed,
    ),
    Check(
        "device", gettext_lazy("Device"),
        gettext_lazy("Time and memory are those of other devices."),
        lambda run: (_plan(run).get("device") or {}).get("name", ""),
    ),
    Check(
        "precision", gettext_lazy("Precision"),
        gettext_lazy("Memory and time differ by it, and a little of the loss."),
        lambda run: _plan(run).get("precision", ""),
    ),
    Check(
        "code", gettext_lazy("Version of Graft"),
        gettext_lazy("Another version may train or measure in another way."),
        lambda run: run.code_version,
    ),
)  # fmt: skip


def findings(runs: Sequence[Run]) -> list[Finding]:
    """What differs among the runs, the gravest first."""
    found = []
    for check in CHECKS:
        groups: dict[str, list[int]] = {}
        for place, run in enumerate(runs, 1):
            if value := check.value(run):
                groups.setdefault(value, []).append(place)
        if len(groups) > 1:
            found.append(Finding(check.id, str(check.label), str(check.why), list(groups.items())))
    return found
