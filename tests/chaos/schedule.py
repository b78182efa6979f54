"""What is done to a site, and when: a pure function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

WORKERS = ("train0", "train1")
# What can be done, how often beside the others, and the least and most seconds until it is made good again.
STROKES: dict[str, tuple[int, float, float]] = {
    "kill worker": (3, 0.2, 2.0),
    "kill pool child": (3, 0, 0),
    "kill training": (3, 0, 0),
    "stop worker with SIGTERM": (2, 0.2, 2.0),
    "suspend worker": (2, 0.5, 6.0),
    "suspend training": (2, 0.5, 4.0),
    "suspend both": (1, 0.5, 6.0),
    "kill dispatcher": (1, 0.2, 3.0),
    "kill web": (1, 0.2, 2.0),
    "kill redis": (2, 0.2, 3.0),
    "flush redis": (2, 0, 0),
    "cancel": (2, 0, 0),
    "pause": (4, 0.5, 4.0),
}
# A run that is killed for its memory again and again is given up (`runs.memory.MOST_CUTS`): not one of these may come to that.
MOST = {"kill training": 4}
LAUNCHED_SHARE = 0.5


@dataclass(frozen=True)
class Stroke:
    """At second `at` of the schedule, `what` is done to `target` (a worker, or the number of a run), and undone after `seconds`."""

    at: float
    what: str
    target: str
    seconds: float

    def __str__(self) -> str:
        again = f", for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:5.1f}  {self.what} {self.target}{again}"


@dataclass(frozen=True)
class Schedule:
    """When each run is launched (seconds, ascending), and the strokes in their order."""

    seed: int
    launches: tuple[float, ...]
    strokes: tuple[Stroke, ...]

    def __str__(self) -> str:
        launches = " ".join(f"{at:.1f}" for at in self.launches)
        return "\n".join([f"seed {self.seed}: launches at {launches}", *map(str, self.strokes)])


def schedule(seed: int, *, runs: int, seconds: float) -> Schedule:
    """That of a seed: half of the runs wait from the start, the others come while strokes fall, one every 0.3 to 2 s."""
    chance = random.Random(seed)  # noqa: S311 a schedule, no secret
    later = sorted(chance.uniform(0, seconds) for _ in range(int(runs * LAUNCHED_SHARE)))
    launches = (*([0.0] * (runs - len(later))), *later)
    strokes: list[Stroke] = []
    at = chance.uniform(0.5, 3)
    while at < seconds:
        what = chance.choices(list(STROKES), [weight for weight, _, _ in STROKES.values()])[0]
        if sum(stroke.what == what for stroke in strokes) < MOST.get(what, len(STROKES) * 100):
            _, least, most = STROKES[what]
            strokes.append(Stroke(at, what, _target(what, chance, runs), chance.uniform(least, most)))
        at += chance.uniform(0.3, 2)
    return Schedule(seed, launches, tuple(strokes))


def _target(what: str, chance: random.Random, runs: int) -> str:
    if what in ("cancel", "pause"):
        return str(chance.randrange(runs))
    return chance.choice(WORKERS) if any(word in what for word in ("worker", "pool child", "training", "both")) else ""
