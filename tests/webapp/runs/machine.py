"""A model of the site for hypothesis: people, two workers with their supervisors, a reaper and a clock, in any order.

All that decides is the real code: the services, the lease, the real `Supervisor` with its ingest and its outcomes, the reaper, on a real
database. What stands in is the child (its events are written by the rules, its end is chosen by them), the loop that calls the supervisor
(a rule is one turn of it), and time: to let it pass, the rows' moments are moved into the past.
"""

from __future__ import annotations

import hashlib
import shutil
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from jobs.errors import GraftError
from jobs.events import EventWriter
from tests.faults.invariants import violations
from tests.webapp.runs.rows import Bench
from webapp.runs import lease, publish
from webapp.runs.child import RunChild
from webapp.runs.ingest import Fenced
from webapp.runs.models import Record, Run, RunEvent, Worker
from webapp.runs.services.cancel import cancel
from webapp.runs.services.claim_next import claim_next
from webapp.runs.services.drain import drain
from webapp.runs.services.extend import extend
from webapp.runs.services.finish import finish
from webapp.runs.services.pause import pause
from webapp.runs.services.reconcile import reap, ring_again
from webapp.runs.services.resume import resume
from webapp.runs.services.retry import retry
from webapp.runs.states import ACTIVE, TERMINAL, TRANSITIONS, Desired, State
from webapp.runs.supervisor import Supervisor
from webapp.work.models import OutboxMessage
from webapp.work.outbox import TRAIN_QUEUE

RUNS = 3
STEPS = 4
# Each takes a run from where it is to its end, or to the queue.
ROUNDS = 12
NAMES = ("train0", "train1")
WISHES = {"cancel": cancel, "pause": pause, "resume": resume, "finish": finish, "retry": retry}
# What a worker that has a run may do, the usual things more often.
ACTS = ("turn", "turn", "train", "train", "save", "end", "be told to stop", "die")
# How a child ends of its own accord, by its exit code.
ENDS = (0, 1, 75, 79, 80, 81, -9, -11)


class Child(RunChild):
    """A child without a process: it writes what the rules say, and ends as they say or as it is told."""

    code: int | None = None

    def start(self, spec: dict[str, Any], resume: list[Path], *, token_cache: Path) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "tmp").mkdir()
        (self.folder / "checkpoints").mkdir()
        self.writer = EventWriter(self.events)
        self.step = max((int(path.name[5:]) for folder in resume for path in folder.glob("step-*")), default=0)
        self.planned = self.asked = self.finishing = False

    @property
    def exit_code(self) -> int | None:
        return self.code

    @property
    def pid(self) -> int:
        return 0

    @property
    def is_gone(self) -> bool:
        return True

    def terminate(self) -> None:
        self.asked = True

    def finish(self) -> None:
        self.finishing = True

    def dump(self) -> None:
        """A child without a process has no stacks."""

    def kill(self) -> None:
        if self.code is None:
            self.code = -9
            if hasattr(self, "writer"):
                self.writer.close()

    def works(self) -> None:
        """One more thing that a training does, in the order in which it does them; nothing where it has ended."""
        if self.code is not None:
            return
        if not self.planned:
            self.planned = True
            self.writer.emit("plan", total_steps=STEPS, start_step=self.step, test_rows=0, steps_per_epoch=STEPS)
            self.writer.emit("phase", name="training", done=self.step, total=STEPS, unit="steps")
        if self.step < STEPS and not self.finishing:
            self.step += 1
            self.writer.emit("step", step=self.step, loss=1.0 / self.step)

    def saves(self) -> None:
        """A checkpoint of the step reached."""
        if self.code is not None:
            return
        (self.folder / "checkpoints" / f"step-{self.step:08}").mkdir(exist_ok=True)
        path = f"checkpoints/step-{self.step:08}"
        self.writer.emit("checkpoint", step=self.step, path=path, bytes=0, seconds=0.0, best=False)

    def ends(self, code: int) -> None:
        """Ends with this code, having done what that means."""
        if code == 0:
            while self.step < STEPS and not self.finishing:
                self.works()
            self._export()
        elif code == 75:
            self.works()
            self.saves()
            self.writer.emit("finished", outcome="preempted", step=self.step)
        self.code = code
        self.writer.close()

    def _export(self) -> None:
        path = self.folder / "artifacts" / "adapter.zip"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"weights of step %d" % self.step)
        body = path.read_bytes()
        self.writer.emit("phase", name="saving", done=0, total=1, unit="bytes")
        self.writer.emit(
            "artifact", name="adapter.zip", kind="adapter", path="artifacts/adapter.zip", bytes=len(body),
            sha256=hashlib.sha256(body).hexdigest(), files=[], details={},
        )  # fmt: skip
        self.writer.emit("finished", outcome="succeeded", step=self.step)


class Turns(Supervisor):
    """A supervisor whose loop somebody else turns."""

    child: Child

    def __init__(self, run: Run, owner: str) -> None:
        self.told_to_stop = False
        super().__init__(run, owner=owner, shutdown=lambda: self.told_to_stop)
        self.child = self._child = Child(run.attempt_folder(run.attempt))
        self._fence._kill = self.child.kill
        self._start()

    def turn(self) -> bool:
        """One turn of the loop, with everything due. Says whether the attempt is over for this worker."""
        self._beat_at = self._looked_at = self._shipped_at = float("-inf")
        try:
            if self.child.exit_code is None:
                self._tick()
                return False
            self._end()
        except Fenced:
            pass
        self._close()
        return True

    def _close(self) -> None:
        self.child.kill()
        self._ingest.close()
        self._child.clean()

    @property
    def holds(self) -> bool:
        """Whether the run is still this attempt's."""
        return Run.objects.filter(pk=self._run.pk, attempt=self._run.attempt, state__in=ACTIVE).exists()

    def write_anyway(self) -> None:
        """All that a supervisor may write of an attempt, without a look at the clock."""
        run_id, attempt = self._run.pk, self._run.attempt
        assert lease.renew(run_id, attempt, 99) is None
        with suppress(Fenced):
            self._ingest.ship()
        failure = lease.Failure("infra", "words", "words")
        for to in (State.RUNNING, State.STOPPING, State.FINALIZING, State.FAILED):
            frm = [state for state in ACTIVE if to in TRANSITIONS[state]]
            assert not lease.move(run_id, attempt, to=to, frm=frm, actor=self._owner)
        assert not lease.enqueue(run_id, attempt, frm=(State.STOPPING,), actor=self._owner)
        assert lease.interrupt(run_id, attempt, actor=self._owner, detail="", failure=failure, retries=3) is None
        assert not publish.succeed(run_id, attempt, [], actor=self._owner)

    def lose(self) -> None:
        """The worker dies, and its child with it; nothing is cleaned up."""
        self.child.kill()
        self._ingest.close()

    def later(self, seconds: float) -> None:
        """Time has passed. The fence's thread, or the child's leash, has noticed."""
        self._fence._renewed_at -= seconds
        if self._fence.fired:
            self.child.kill()


class Site(RuleBasedStateMachine):
    """The rules. `bench` is a team that can launch; everything happens within a transaction that is taken back at the end."""

    bench: Bench

    def __init__(self) -> None:
        super().__init__()
        self._undo = transaction.atomic()
        self._undo.__enter__()
        self.runs: list[Run] = []
        self.supervisors: dict[str, Turns] = {}
        self.attempts: dict[Any, int] = {}
        for name in NAMES:
            Worker.objects.create(name=name, queue=TRAIN_QUEUE, seen_at="2026-01-01T00:00:00Z")

    def teardown(self) -> None:
        """What was recorded is checked, and once more when everything has come to its end."""
        try:
            assert violations(self.runs, leave_out=("I6",)) == []
            self._come_to_an_end()
            assert violations(self.runs) == []
        finally:
            for supervisor in self.supervisors.values():
                supervisor.lose()
            shutil.rmtree(Path(settings.GRAFT_VAR) / "runs", ignore_errors=True)
            transaction.set_rollback(True)
            self._undo.__exit__(None, None, None)

    def _come_to_an_end(self) -> None:
        """No run is forgotten: a reaper and two workers that work are all it takes, and somebody who resumes what is paused."""
        Worker.objects.update(draining=False)
        for _ in range(ROUNDS):
            waiting = [run for run in Run.objects.filter(pk__in=[run.pk for run in self.runs]) if run.state not in TERMINAL]
            if not waiting:
                return
            for run in waiting:
                if run.state == State.PAUSED:
                    resume(run, actor="alice")
            for name in NAMES:
                self.hear_a_doorbell(name)
                self.end(name, 0)
                self.supervise(name)
            self.time(80.0, reaps=True)
        raise AssertionError([f"{run.name}: {run.state}, wanted {run.desired}" for run in waiting])

    @initialize()
    def one_at_work(self) -> None:
        """A walk begins with a run that a worker holds."""
        self.launch()
        self.hear_a_doorbell(NAMES[0])

    # -- people -----------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["launch", "extend", "drain", "undrain", *WISHES]), number=st.integers(0, RUNS - 1))
    def people(self, what: str, number: int) -> None:
        """Somebody asks for something. What does not fit is refused, and then has changed nothing."""
        if what == "launch":
            self.launch()
        elif what in ("drain", "undrain"):
            worker = Worker.objects.get(name=NAMES[number % len(NAMES)])
            drain(worker, draining=what == "drain", actor=self.bench.user, team=self.bench.team)
        else:
            self._ask(what, self.runs[number % len(self.runs)])

    def launch(self) -> None:
        if len(self.runs) < RUNS:
            self.runs.append(self.bench.launch(name=f"run {len(self.runs)}"))

    def _ask(self, what: str, run: Run) -> None:
        before = Run.objects.values().get(pk=run.pk)
        try:
            if what == "extend":
                extend(run, epochs=1.0, actor="alice")
            else:
                WISHES[what](run, actor="alice")
        except GraftError as refused:
            assert refused.code == "run_state"  # noqa: PT017
            assert Run.objects.values().get(pk=run.pk) == before

    # -- workers ----------------------------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), act=st.sampled_from(ACTS), code=st.sampled_from(ENDS))
    def worker(self, name: str, act: str, code: int) -> None:
        """A worker, its supervisor or its training does the next thing."""
        supervisor = self.supervisors.get(name)
        if supervisor is None:
            self.hear_a_doorbell(name)
        elif act == "turn":
            self.supervise(name)
        elif act == "train":
            supervisor.child.works()
        elif act == "save":
            supervisor.child.saves()
        elif act == "end":
            self.end(name, code)
        elif act == "be told to stop":
            supervisor.told_to_stop = True
        elif act == "die":
            self.supervisors.pop(name).lose()

    def hear_a_doorbell(self, name: str) -> None:
        """An idle worker claims the next run; one that is draining never does."""
        if name in self.supervisors:
            return
        draining = Worker.objects.get(name=name).draining
        run = claim_next(TRAIN_QUEUE, name)
        assert not (draining and run)
        if run is not None:
            self.supervisors[name] = Turns(run, name)

    def supervise(self, name: str) -> None:
        """One turn of the supervisor's loop."""
        if (supervisor := self.supervisors.get(name)) and supervisor.turn():
            del self.supervisors[name]

    def end(self, name: str, code: int) -> None:
        """The training ends with this code; one that was asked to stop has written a checkpoint."""
        supervisor = self.supervisors.get(name)
        if supervisor is not None and supervisor.child.exit_code is None:
            supervisor.child.ends(75 if supervisor.child.asked and code > 0 else code)

    def _write_anyway(self, supervisor: Turns) -> None:
        """A worker was stopped after it had looked at its clock: what it then writes for an attempt that is lost changes nothing."""
        before = list(Run.objects.values()), RunEvent.objects.count(), Record.objects.count()
        supervisor.write_anyway()
        assert (list(Run.objects.values()), RunEvent.objects.count(), Record.objects.count()) == before

    # -- reaper and clock -------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([80.0, 20.0, 50.0]), reaps=st.booleans())
    def time(self, seconds: float, reaps: bool) -> None:
        """Time passes, and perhaps the reaper comes by: who is idle then hears a doorbell. A worker that has heard nothing for so long may
        be a zombie afterwards: it goes on with what it believes to hold.
        """
        delta = timedelta(seconds=seconds)
        Run.objects.update(lease_expires_at=F("lease_expires_at") - delta)
        Worker.objects.update(seen_at=F("seen_at") - delta)
        OutboxMessage.objects.update(created_at=F("created_at") - delta)
        for supervisor in self.supervisors.values():
            supervisor.later(seconds)
        if reaps:
            reap()
            ring_again()
            for name in NAMES:
                self.hear_a_doorbell(name)
        for supervisor in self.supervisors.values():
            if not supervisor.holds:
                self._write_anyway(supervisor)

    # -- what always holds --------------------------------------------------------------------------------------------

    @invariant()
    def attempts_only_grow_and_the_last_word_holds(self) -> None:
        for run in Run.objects.filter(pk__in=[run.pk for run in self.runs]):
            assert run.attempt >= self.attempts.get(run.pk, 0)
            self.attempts[run.pk] = run.attempt
            if run.state == State.PAUSED:
                assert run.desired == Desired.PAUSE
            if run.state == State.QUEUED:
                assert run.desired in (Desired.RUN, Desired.FINISH)

    @invariant()
    def at_most_one_holds_a_run(self) -> None:
        """Of the supervisors that believe to hold a run, one at most has a living child; and it is the one that the database names."""
        living = [supervisor for supervisor in self.supervisors.values() if supervisor.child.exit_code is None]
        held = [supervisor._run.pk for supervisor in living]
        assert len(held) == len(set(held))
        for supervisor in living:
            run = Run.objects.get(pk=supervisor._run.pk)
            assert run.attempt == supervisor._run.attempt
            assert run.state in ACTIVE
