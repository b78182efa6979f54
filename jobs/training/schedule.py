"""Learning-rate schedules as a pure function of the step."""

from __future__ import annotations

import math


def warmup_steps(total_steps: int, share: float) -> int:
    """Steps of warm-up: a share of all steps, rounded up, and at least one step left after it."""
    return min(math.ceil(total_steps * share), total_steps - 1)


def rate_factor(step: int, *, total_steps: int, warmup: int, kind: str, cycles: int = 1) -> float:
    """The share of the peak learning rate at `step` (counted from 0).

    It rises in `warmup` equal parts (the first step already moves), is 1 at the step after them, and from there stays (`constant`) or
    falls to 0 just after the last step (`linear`, `cosine`). `cosine_with_restarts` falls so `cycles` times, each time from 1 anew
    (Loshchilov and Hutter 2017, arXiv:1608.03983, with cycles of equal length).
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    # Whole numbers up to the one division, so that a cycle's first step has exactly the rate 1.
    length = max(1, total_steps - warmup)
    rounds = cycles if kind == "cosine_with_restarts" else 1
    done = (step - warmup) * rounds % length / length
    if kind == "linear":
        return 1.0 - done
    return 1.0 if kind == "constant" else 0.5 * (1.0 + math.cos(math.pi * done))
