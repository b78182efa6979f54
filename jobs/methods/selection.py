"""Which layers of a base a method adapts, chosen upon its frame, and sizes that fit them. Free of torch."""

from __future__ import annotations

from collections.abc import Iterable
from math import gcd

from jobs.errors import UserError
from jobs.methods.settings import TARGETS
from jobs.models.frame import Frame, Layer


def targeted(frame: Frame, targets: str, *, method: str) -> list[Layer]:
    """The layers that `targets` (a choice of `TARGETS`) means, heads left out, by name.

    Raises `UserError("method_setting")` where there is none.
    """
    found = [layer for layer in frame.layers if layer.attention or targets != "attention"]
    if not found:
        raise setting_unfit(method, TARGETS.name, "finds no such layer in this model; choose all-linear")
    return sorted(found, key=lambda layer: layer.name)


def setting_unfit(method: str, setting: str, reason: str) -> UserError:
    """The error of a setting whose value this model's shapes do not allow; `reason` goes on after its name."""
    return UserError("method_setting", method=method, setting=setting, reason=reason, where={"field": f"method.settings.{setting}"})


def divisor(sizes: Iterable[int], chosen: int, *, at_most: int, method: str, setting: str) -> int:
    """A number that divides all `sizes`: `chosen`, or where that is 0 the greatest one up to `at_most`.

    Raises `UserError("method_setting")` where `chosen` does not divide them, with those it does not.
    """
    known = sorted(set(sizes))
    if not chosen:
        common = gcd(*known)
        return max(number for number in range(1, min(at_most, common) + 1) if common % number == 0)
    if odd := [size for size in known if size % chosen]:
        found = ", ".join(str(size) for size in odd)
        raise setting_unfit(
            method, setting, f"is {chosen}, which does not divide this model's layer sizes {found}; 0 chooses one that does"
        )
    return chosen
