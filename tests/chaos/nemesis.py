"""Carries a schedule out against a running site, and makes everything good again at its end."""

from __future__ import annotations

import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import psutil
from redis.exceptions import RedisError

from jobs.errors import GraftError
from tests.chaos.schedule import Schedule, Stroke
from tests.flow.site import Site, command_line
from webapp.runs.models import Run
from webapp.runs.services.cancel import cancel
from webapp.runs.services.pause import pause
from webapp.runs.services.resume import resume
from webapp.runs.states import TERMINAL, Desired, State

TICK_SECONDS = 0.05
LOOK_SECONDS = 0.5
SETTLE_SECONDS = 240.0
_ATTEMPT = re.compile(r"runs/([0-9a-f-]{36})/attempt-(\d+)")


class Nemesis:
    """One seed on a site whose Redis and dispatcher run. `launch` makes the run of a number; `starts` is how each process is started."""

    def __init__(self, site: Site, launch: Callable[[int], Run], starts: dict[str, Callable[[], object]]) -> None:
        self._site, self._launch, self._starts = site, launch, starts
        self._undo: list[tuple[float, Callable[[], object]]] = []
        self.runs: list[Run] = []
        self.cancelled: set[int] = set()
        self.wrong: list[str] = []
        self.done: Counter[str] = Counter()

    def carry_out(self, plan: Schedule) -> None:
        """The schedule; then everything is started again, what rests is resumed, and all runs come to their end."""
        began, looked = time.monotonic(), 0.0
        strokes, launches = list(plan.strokes), list(plan.launches)
        while strokes or launches:
            now = time.monotonic() - began
            while launches and launches[0] <= now:
                launches.pop(0)
                self.runs.append(self._launch(len(self.runs)))
            while strokes and strokes[0].at <= now:
                self._strike(strokes.pop(0))
            self._make_good(time.monotonic())
            if now - looked > LOOK_SECONDS:
                looked = now
                self._look()
            time.sleep(TICK_SECONDS)
        self._make_good(float("inf"))
        self._settle()

    def _settle(self) -> None:
        until = time.monotonic() + SETTLE_SECONDS
        while waiting := [run for run in Run.objects.filter(pk__in=[run.pk for run in self.runs]) if run.state not in TERMINAL]:
            if time.monotonic() > until:
                self.wrong += [f"{run.name} has not ended: {run.state}, wanted {run.desired}, attempt {run.attempt}" for run in waiting]
                return
            for run in waiting:
                if run.state == State.PAUSED or run.desired == Desired.PAUSE:
                    with suppress(GraftError):
                        resume(run, actor="chaos")
            self._restart_the_dead()
            self._look()
            time.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        """I1 and I8 of what lives: one training for a run at most, of its newest attempt."""
        found = Counter(run_id for process in self._site.trainings() if (run_id := _run_of(process)))
        self.wrong += [f"I1 {count} trainings of {run_id} live at one time" for run_id, count in found.items() if count > 1]

    def orphans(self) -> list[str]:
        """I8: trainings that live although their run has ended, a little after the end."""
        until = time.monotonic() + 5
        while (left := self._site.trainings()) and time.monotonic() < until:
            time.sleep(0.1)
        return [f"I8 a training of {_run_of(process)} lives on" for process in left]

    # -- strokes ----------------------------------------------------------------------------------------------------

    def _strike(self, stroke: Stroke) -> None:
        act = {
            "kill worker": self._kill, "stop worker with SIGTERM": self._terminate, "kill dispatcher": self._kill, "kill web": self._kill,
            "kill redis": self._kill, "kill pool child": self._kill_pool, "kill training": self._kill_training,
            "suspend worker": self._suspend, "suspend training": self._suspend, "suspend both": self._suspend,
            "flush redis": self._flush, "cancel": self._cancel, "pause": self._pause,
        }[stroke.what]  # fmt: skip
        if act(stroke):
            self.done[stroke.what] += 1

    def _later(self, stroke: Stroke, undo: Callable[[], object]) -> None:
        self._undo.append((time.monotonic() + stroke.seconds, undo))

    def _make_good(self, now: float) -> None:
        due = [undo for at, undo in self._undo if at <= now]
        self._undo = [(at, undo) for at, undo in self._undo if at > now]
        for undo in due:
            undo()

    def _kill(self, stroke: Stroke, number: signal.Signals = signal.SIGKILL) -> bool:
        name = stroke.target or stroke.what.removeprefix("kill ")
        process = self._site.processes[name]
        if process.poll() is not None:
            return False
        process.send_signal(number)
        if number == signal.SIGKILL:
            process.wait(30)
        self._later(stroke, lambda: self._start(name))
        return True

    def _terminate(self, stroke: Stroke) -> bool:
        return self._kill(stroke, signal.SIGTERM)

    def _start(self, name: str) -> None:
        """Starts a process again as soon as the old one has gone."""
        process = self._site.processes[name]
        if process.poll() is None:
            self._undo.append((time.monotonic() + 0.2, lambda: self._start(name)))
        else:
            self._starts[name]()

    def _restart_the_dead(self) -> None:
        self._make_good(time.monotonic())
        for name, start in self._starts.items():
            if self._site.processes[name].poll() is not None:
                start()

    def _kill_pool(self, stroke: Stroke) -> bool:
        found = self._tree(stroke.target)["pool"]
        _signal(found, signal.SIGKILL)
        return bool(found)

    def _kill_training(self, stroke: Stroke) -> bool:
        found = self._tree(stroke.target)["training"]
        _signal(found, signal.SIGKILL)
        return bool(found)

    def _suspend(self, stroke: Stroke) -> bool:
        tree = self._tree(stroke.target)
        chosen = {"worker": tree["main"] + tree["pool"], "training": tree["training"]}.get(
            stroke.what.removeprefix("suspend "), [process for part in tree.values() for process in part]
        )
        _signal(chosen, signal.SIGSTOP)
        self._later(stroke, lambda: _signal(chosen, signal.SIGCONT))
        return bool(chosen)

    def _tree(self, worker: str) -> dict[str, list[psutil.Process]]:
        """The worker's processes: its main one, its pool's, and the trainings."""
        try:
            main = psutil.Process(self._site.processes[worker].pid)
            pool = main.children()
            trainings = [child for process in pool for child in process.children() if _run_of(child)]
        except psutil.NoSuchProcess:
            return {"main": [], "pool": [], "training": []}
        return {"main": [main], "pool": pool, "training": trainings}

    def _flush(self, stroke: Stroke) -> bool:
        try:
            return bool(self._site.redis().flushall())
        except RedisError:
            return False

    def _cancel(self, stroke: Stroke) -> bool:
        number = int(stroke.target)
        if number >= len(self.runs):
            return False
        try:
            cancel(self.runs[number], actor="chaos")
        except GraftError:
            return False
        self.cancelled.add(number)
        return True

    def _pause(self, stroke: Stroke) -> bool:
        number = int(stroke.target)
        if number >= len(self.runs):
            return False
        try:
            pause(self.runs[number], actor="chaos")
        except GraftError:
            return False
        self._later(stroke, lambda: self._resume(self.runs[number]))
        return True

    def _resume(self, run: Run) -> None:
        with suppress(GraftError):
            resume(run, actor="chaos")


def _signal(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _run_of(process: psutil.Process) -> str:
    """The run that a training is for, by its command line or the files that it holds; empty for another process."""
    try:
        texts = [*command_line(process), *(file.path for file in process.open_files())]
    except psutil.Error:
        return ""
    found = (_ATTEMPT.search(text) for text in texts)
    return next((match[1] for match in found if match), "")
