"""The methods that a run may take, as the form shows them: by family, each with its settings, and why some do not fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.forms import BoundField
from django.utils.translation import gettext_lazy as _

from jobs.methods.entry import Method
from jobs.methods.obstacles import obstacle
from jobs.methods.registry import all_methods
from jobs.spec import Task
from jobs.tasks.registry import ENTRIES
from webapp.accounts.models import Team
from webapp.catalog.models import BaseModel
from webapp.runs.services.specs import with_adapters
from webapp.runs.task_choice import obstacle_of


@dataclass(frozen=True)
class MethodCard:
    """A method as the form shows it: its entry, its settings as bound fields, why it does not fit ("" where it does), and how many
    parameters it trains at its defaults ("" where that is not known).
    """

    method: Method
    fields: list[BoundField]
    chosen: bool
    obstacle: str
    trained: str

    @property
    def brief(self) -> str:
        """The first sentence of the summary."""
        return self.method.summary.split(". ")[0].rstrip(".") + "."

    @property
    def rest(self) -> str:
        """What follows it."""
        return self.method.summary.partition(". ")[2]


@dataclass(frozen=True)
class Family:
    """The methods of one mechanism, in the catalogue's order."""

    label: Any
    cards: list[MethodCard]

    @property
    def open(self) -> bool:
        """Whether it is shown at once: where most people find theirs, and where the chosen one is."""
        return any(card.chosen or card.method.id in ("full", "lora") for card in self.cards)


FAMILIES = {
    "full": _("All weights"),
    "low-rank": _("Low-rank updates"),
    "reparametrisation": _("Other updates of the weights"),
    "sparse": _("Sparse updates"),
    "adapters": _("Adapters between the layers"),
    "selective": _("A few of the model's own weights"),
    "prompts": _("Learned prompts"),
}


def obstacles_of(team: Team, models: Iterable[BaseModel], device_kinds: Collection[str]) -> dict[str, dict[str, dict[str, str]]]:
    """Why methods do not fit, by the base model's id, the task and the method; what fits is left out, and so are tasks that do not.

    `device_kinds` are those of the workers that have been seen.
    """
    there: dict[Any, Counter[str]] = {}
    for base_id, method in with_adapters(team).values_list("base_model_id", "method"):
        there.setdefault(base_id, Counter())[method] += 1

    def reason(method: Method, task: Task, model: BaseModel) -> str:
        counted = there.get(model.pk, Counter())
        return obstacle(method, task=task, facts=model.facts, model=model.name, device_kinds=device_kinds, adapters=counted)

    return {
        str(model.pk): {
            entry.id: {method.id: why for method in all_methods() if (why := reason(method, entry.id, model))}
            for entry in ENTRIES
            if not obstacle_of(entry.id, model, None)
        }
        for model in models
    }
