"""What a run made its model forget: the general probe before and after, for the page of the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext, gettext_lazy

from webapp.core import formats

KINDS = {
    "knowledge": gettext_lazy("general knowledge"),
    "arithmetic": gettext_lazy("arithmetic"),
    "grammar": gettext_lazy("grammar"),
    "code": gettext_lazy("code"),
    "prose": gettext_lazy("prose"),
    "instructions": gettext_lazy("instructions"),
}
# A difference of the loss below this, in nats per token, gets no colour: the perplexity has then changed by less than a twentieth.
NOTABLE = 0.05


@dataclass(frozen=True)
class Forgotten:
    """One line: a kind of items (or all), the loss before, after and the difference in words, likewise the share of right choices.

    `look` is the tag of the difference of the loss: `warn` where the tuned model is worse, `ok` where it is better, `idle` between.
    """

    label: str
    loss: tuple[str, str, str]
    choices: tuple[str, str, str] | None
    look: str


def forgetting(probed: Mapping[str, Mapping[str, Any]]) -> list[Forgotten]:
    """The lines of the table, all items first; empty until base and tuned model are both measured. `probed`: `eval` data by model."""
    if not {"base", "tuned"} <= probed.keys():
        return []
    before, after = probed["base"], probed["tuned"]
    lines = [_line(gettext("all items"), before, after)]
    shared = [kind for kind in KINDS if kind in before["kinds"] and kind in after["kinds"]]
    return lines + [_line(str(KINDS[kind]), before["kinds"][kind], after["kinds"][kind]) for kind in shared]


def _line(label: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Forgotten:
    old, new = before.get("loss"), after.get("loss")
    difference = None if old is None or new is None else new - old
    look = "idle" if difference is None or abs(difference) < NOTABLE else "warn" if difference > 0 else "ok"
    return Forgotten(label, _loss(old, new, difference), _choices(before.get("choice_accuracy"), after.get("choice_accuracy")), look)


def _loss(old: Any, new: Any, difference: float | None) -> tuple[str, str, str]:
    return formats.format_number(old, 3), formats.format_number(new, 3), "–" if difference is None else _signed(difference, 2)


def _choices(old: float | None, new: float | None) -> tuple[str, str, str] | None:
    if old is None or new is None:
        return None
    return formats.format_percent(old, 0), formats.format_percent(new, 0), _signed(100 * (new - old), 0)


def _signed(value: float, digits: int) -> str:
    return f"{value:+.{digits}f}".replace("-", "−")
