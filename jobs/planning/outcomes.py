"""What a team's own runs have shown: how much they helped, what they took, how fast they were. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from jobs.errors import UserError


@dataclass(frozen=True)
class Outcome:
    """A finished run of the team, as plain data: `loss_before` and `loss_after` on the same held-out rows, `seconds` of training.

    `base` is the model's name, and is compared with that of the spec; `training` has what differed from the defaults. `device` is the name
    of what it ran on, and `tokens_per_second` how fast it trained there; both may be left out.
    """

    name: str
    method: str
    settings: dict[str, Any]
    training: dict[str, Any]
    base: str
    task: str
    rows: int
    loss_before: float
    loss_after: float
    seconds: float
    peak_bytes: int
    device: str = ""
    tokens_per_second: float | None = None

    @property
    def gain(self) -> float:
        """The share of the loss that the training took away; below 0 it made matters worse."""
        return 1 - self.loss_after / self.loss_before

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Outcome:
        """Reads what `asdict` wrote. Raises `UserError("spec_bad_value")`."""
        try:
            found = cls(**body)
            usable = found.loss_before > 0 and found.rows > 0 and found.seconds >= 0
        except TypeError as failure:
            raise UserError("spec_bad_value", field="past runs", value=repr(body)[:80], reason=failure, where={"field": "past"}) from None
        if not usable:
            reason = "loss_before and rows must be above 0"
            raise UserError("spec_bad_value", field="past runs", value=repr(body)[:80], reason=reason, where={"field": "past"})
        return found


@dataclass(frozen=True)
class Timing:
    """Seconds of training, and what they rest on, in words."""

    seconds: float
    basis: str


def own_timing(past: Sequence[Outcome], *, method: str, base: str, device: str, tokens: float) -> Timing | None:
    """How long `tokens` of training would take at the median speed of the own runs of this method on this base and device; None without
    such a run. The rows of those runs may have been of other lengths.
    """
    alike = [run for run in past if (run.method, run.base, run.device) == (method, base, device)]
    speeds = [run.tokens_per_second for run in alike if run.tokens_per_second]
    if not speeds:
        return None
    runs = "one of your own runs" if len(speeds) == 1 else f"{len(speeds)} of your own runs"
    return Timing(tokens / median(speeds), f"the speed of {runs} of this method on this base and device")
