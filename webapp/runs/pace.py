"""How fast a training steps, and how long a silence of it is therefore no hang."""

from __future__ import annotations

from collections import deque
from statistics import median

from webapp.settings.env import ENV

# A step may take this many times as long as the usual one: what comes between two steps, an evaluation as a rule, tells of itself.
STEPS = 20
_KEPT = 50


class Pace:
    """Notes when steps were made. A training whose steps take minutes is not taken for one that hangs."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._seconds: deque[float] = deque(maxlen=_KEPT)

    def step(self, at: float) -> None:
        """A step was told `at`, in seconds of any clock that is the same for all."""
        if self._last is not None:
            self._seconds.append(max(0.0, at - self._last))
        self._last = at

    @property
    def stall_seconds(self) -> float:
        """After so long a silence it hangs: `ENV.stall_seconds`, or that of `STEPS` usual steps if that is longer."""
        usual = median(self._seconds) if self._seconds else 0.0
        return max(ENV.stall_seconds, STEPS * usual)
