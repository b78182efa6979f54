"""How many numbers a run would train, told beside the form before its launch, for each method and for the settings as they are typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from django.utils.translation import gettext as _

from jobs.errors import UserError
from jobs.methods.adapter import count_trained, read_config
from jobs.methods.entry import Method
from jobs.methods.registry import all_methods
from jobs.models.frame import Frame, frame_of_files
from jobs.spec import Task
from webapp.catalog.services.tensors import tensors_of
from webapp.core.formats import format_number, format_percent
from webapp.runs.models import Run
from webapp.runs.services.specs import adapter_of

FRAMES_KEPT = 64


@dataclass(frozen=True)
class Trained:
    """`count` numbers train beside the head of the labels, which adds `per_label` for each of them; `base` is the size of the base.

    `unknown`: why the count is not known, as the end of a sentence; empty where it is.
    """

    count: int
    per_label: int
    base: int
    unknown: str = ""

    @property
    def words(self) -> str:
        """As a sentence."""
        if self.unknown:
            return _("How many parameters train is known once the run has begun: %(reason)s.") % {"reason": self.unknown}
        told = {"count": format_number(self.count), "base": format_number(self.base), "label": format_number(self.per_label)}
        told["share"] = format_percent(self.count / self.base, digits=3)
        if self.per_label:
            return _("Trains %(count)s parameters, %(share)s of the base's %(base)s, and %(label)s for each label.") % told
        return _("Trains %(count)s parameters, %(share)s of the base's %(base)s.") % told

    @property
    def brief(self) -> str:
        """The number alone, for a card; empty where it is not known."""
        return "" if self.unknown else _("%(count)s parameters") % {"count": format_number(self.count)}


def trained_by(method: Method, given: Mapping[str, Any], folder: Path, task: Task, adapters: Sequence[Run] = ()) -> Trained | None:
    """What a run would train; None where settings, task and base do not go together, or the base's files are not there."""
    finished = [config for run in adapters if (config := read_config(adapter_of(str(run.id))))]
    try:
        settings = method.resolve(dict(given))
        none, one = (_frame(folder, task, labels) for labels in (0, 1))
        adapter = method.plan_adapter(settings, none, finished)
        count = count_trained(adapter, none)
    except UserError:
        return None
    base = none.parameters - sum(none.head.values())
    if count is None:
        return Trained(0, 0, base, unknown=adapter.unknown if adapter else "")
    # Whatever the method, a label's row of the head trains whole.
    return Trained(count, one.parameters - none.parameters, base)


def by_method(folder: Path, task: Task) -> dict[str, str]:
    """What each method trains at its defaults on the base in `folder`, for its card; where it is not known, the method is left out."""
    found = {method: told.brief for method, told in _defaults(folder, task)}
    return {method: words for method, words in found.items() if words}


@lru_cache(FRAMES_KEPT)
def _defaults(folder: Path, task: Task) -> tuple[tuple[str, Trained], ...]:
    found = ((method.id, trained_by(method, {}, folder, task)) for method in all_methods() if task in method.capabilities.tasks)
    return tuple((method, told) for method, told in found if told)


@lru_cache(FRAMES_KEPT)
def _frame(folder: Path, task: Task, labels: int) -> Frame:
    """A base model's files never change once it is ready."""
    config, tensors = tensors_of(folder)
    return frame_of_files(config, {tensor.name: tensor.shape for tensor in tensors}, task, labels)
