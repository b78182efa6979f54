"""One seed: a site, its runs, the strokes, and the verdict."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from django.conf import settings

from tests.chaos.nemesis import Nemesis
from tests.chaos.schedule import WORKERS, schedule
from tests.faults.invariants import violations
from tests.flow.site import Site, running_site, wait_for
from tests.tiny import make_tiny_model
from tests.webapp.runs.live import Web
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Record, Run
from webapp.runs.states import State

ROWS = [{"prompt": f"Say {number}: ", "completion": "even" if number % 2 == 0 else "odd"} for number in range(64)]
RECIPE: dict[str, Any] = {
    "settings": {"rank": 4},
    "training": {"epochs": 12.0, "micro_batch": 8, "gradient_accumulation": 1, "precision": "float32", "checkpoint_every_steps": 6},
    "evaluation": {"generate": False, "samples": 0, "retention": False},
    "export": {"merge": "none"},
}
# Whatever is done to a run here is no fault of its user: it must come to its end however often it was lost.
ENDLESS = {"GRAFT_INFRA_RETRIES": "1000", "GRAFT_CRASH_RETRIES": "1000"}
# Losses of a run whose micro-batches were halved: the same but for the order of the sums.
ROUNDING = 1e-4


class Ground:
    """A site on which one seed after another is carried out. `train0` has a process that waits for its next run, `train1` has none.

    With `stand_in`, options of `tests.webapp.runs.trainer`, that program writes the events and checkpoints in place of the engine: a tenth
    of the time, for what is asked of everything around it.
    """

    def __init__(self, site: Site, stand_in: str = "") -> None:
        self.site, self._stand_in = site, stand_in
        site.environment.update(ENDLESS)
        for name in WORKERS:
            self.start_worker(name)
        site.start_dispatcher()
        web = Web(site)
        self.starts: dict[str, Callable[[], object]] = {name: partial(self.start_worker, name) for name in WORKERS}
        self.starts |= {"dispatcher": site.start_dispatcher, "redis": site.start_redis, "web": web.start}

    def start_worker(self, name: str) -> None:
        """Starts a worker, without waiting for it."""
        options = ["-Q", "train", "-c", "1", "-n", f"{name}@site", "--without-gossip", "--without-mingle", "-l", "INFO"]
        warm = str(name == WORKERS[0]).lower()
        app = "tests.flow.app" if self._stand_in else "webapp"
        command = (sys.executable, "-m", "celery", "-A", app, "worker", *options)
        self.site.start(name, *command, GRAFT_WARM_CHILD=warm, FLOW_TRAINER=self._stand_in)

    def launcher(self, number: int) -> Callable[[int], Run]:
        """A team of its own for a seed; gives what launches its runs."""
        bench: Bench = make_bench(f"seed-{number}", rows=ROWS)
        make_tiny_model(bench.base_model.folder)
        return lambda run: bench.launch(name=f"run {run}", **RECIPE)


@contextmanager
def ground(stand_in: str = "") -> Iterator[Ground]:
    """A site with all its processes."""
    with running_site(settings) as site:
        yield Ground(site, stand_in)


class Seed:
    """A seed, to be carried out once."""

    def __init__(self, number: int, *, runs: int, seconds: float) -> None:
        self.plan = schedule(number, runs=runs, seconds=seconds)

    def run(self, on: Ground) -> dict[str, Any]:
        """Carries it out; gives seed, seconds, the ends, the number of attempts, the strokes that fell, and what was `wrong`."""
        began = time.monotonic()
        wait_for(lambda: all(f"{name}@site ready." in on.site.log(name) for name in WORKERS), 120)
        nemesis = Nemesis(on.site, on.launcher(self.plan.seed), on.starts)
        nemesis.carry_out(self.plan)
        wrong = nemesis.wrong + nemesis.orphans() + violations(nemesis.runs) + self._ends(nemesis) + _curves(nemesis.runs)
        rows = Run.objects.filter(pk__in=[run.pk for run in nemesis.runs])
        return {
            "seed": self.plan.seed,
            "seconds": round(time.monotonic() - began, 1),
            "ends": dict(Counter(rows.values_list("state", flat=True))),
            "attempts": sum(rows.values_list("attempt", flat=True)),
            "smaller": sum(rows.values_list("memory_cuts", flat=True)),
            "strokes": dict(nemesis.done),
            "wrong": wrong + [f"{name}: {line}" for name in on.site.processes if wrong for line in _complaints(on.site, name)],
        }

    def _ends(self, nemesis: Nemesis) -> list[str]:
        """Runs that came to another end than people wanted."""
        found = []
        for number, run in enumerate(nemesis.runs):
            run.refresh_from_db()
            right = {State.SUCCEEDED, State.CANCELLED} if number in nemesis.cancelled else {State.SUCCEEDED}
            if run.state not in right:
                found.append(f"{run.name} is {run.state} ({run.failure_code} {run.message})")
        return found


def _curves(runs: list[Run]) -> list[str]:
    """Runs of one recipe whose losses are not the same at each step: to the bit, but for those whose micro-batches were halved."""
    curves = {run.pk: _curve(run) for run in runs if run.state == State.SUCCEEDED}
    exact = {run.pk for run in runs if run.pk in curves and run.memory_cuts == 0}
    model = next((curves[run.pk] for run in runs if run.pk in exact), None)
    if model is None:
        return []
    return [
        f"{run.name} has another curve of losses than the first run: {_difference(curves[run.pk], model)}"
        for run in runs
        if run.pk in curves and not (_losses(curves[run.pk]) == _losses(model) if run.pk in exact else _close(curves[run.pk], model))
    ]


# Of each step its loss, and the attempt that did it.
_Curve = dict[int, tuple[float, int]]


def _curve(run: Run) -> _Curve:
    """In the order of the attempts: of a step that was done twice, the later one counts."""
    rows = Record.objects.filter(run=run, kind="step").order_by("attempt", "seq")
    return {step: (data["loss"], attempt) for step, data, attempt in rows.values_list("step", "data", "attempt")}


def _losses(curve: _Curve) -> dict[int, float]:
    return {step: loss for step, (loss, _) in curve.items()}


def _difference(curve: _Curve, model: _Curve) -> str:
    """Where they part, and how far."""
    apart = {step: abs(curve[step][0] - model[step][0]) for step in curve.keys() & model.keys() if curve[step][0] != model[step][0]}
    if not apart:
        return f"{len(curve)} steps in place of {len(model)}"
    first = min(apart)
    return f"from step {first} on (attempt {curve[first][1]}, there {model[first][1]}), by up to {max(apart.values()):.1e}"


def _close(one: _Curve, other: _Curve) -> bool:
    return one.keys() == other.keys() and all(abs(loss - other[step][0]) < ROUNDING for step, (loss, _) in one.items())


def _complaints(site: Site, name: str) -> list[str]:
    """The end of each traceback in a process's log."""
    text = site.log(name)
    return [part.splitlines()[-1] for part in text.split("\n\n") if "Traceback" in part][-3:]
