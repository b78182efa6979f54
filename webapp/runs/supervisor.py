"""The supervisor: one attempt of a run, from the claim to the end of its child.

It starts the child, ships what the child writes, renews the lease, reads what people want, and stops the process group when it must. It
never trains, so that nothing of what goes wrong in training can take it down.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.db import DatabaseError, connection
from django.db.models import F
from django.db.models.functions import Coalesce, Now

from jobs.errors import GraftError
from jobs.events import Event
from webapp.runs import lease, memory, publish
from webapp.runs.child import RunChild
from webapp.runs.fence import Fence, clock
from webapp.runs.ingest import Fenced, Ingest
from webapp.runs.kinds import Kind
from webapp.runs.models import Run, Worker
from webapp.runs.outcome import Asked, Outcome, decide, of
from webapp.runs.pace import Pace
from webapp.runs.services.handed import handed
from webapp.runs.standby import Standby
from webapp.runs.states import ACTIVE, TRANSITIONS, Desired, State
from webapp.settings.env import ENV

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
SHIP_SECONDS = 0.35
# Where a stopped run goes, by what people want of it when it has stopped.
_REST: dict[Desired, State] = {
    Desired.CANCEL: State.CANCELLED,
    Desired.PAUSE: State.PAUSED,
    Desired.RUN: State.QUEUED,
    Desired.FINISH: State.QUEUED,
    Desired.EXTEND: State.QUEUED,
}


class Supervisor:
    """Supervises the attempt that `run` was claimed for. `shutdown` says whether this worker is to stop; `command` stands
    in for the engine's; `standby` is the process that waits for a run, if one does.
    """

    def __init__(
        self,
        run: Run,
        *,
        owner: str,
        shutdown: Callable[[], bool] = lambda: False,
        command: tuple[str, ...] | None = None,
        standby: Standby | None = None,
    ) -> None:
        self._run, self._owner, self._shutdown = run, owner, shutdown
        self._child = RunChild(run.attempt_folder(run.attempt), kind=Kind(run.kind), command=command, standby=standby)
        self._state = State.STARTING
        self._asked: Asked = ""
        self._kill_at = float("inf")
        self._loaded = self._exporting = self._progressed = self._finishing = False
        self._artifacts: list[dict[str, Any]] = []
        self._finished: dict[str, Any] | None = None
        now = clock()
        self._beat_at = self._looked_at = self._shipped_at = self._heard_at = now
        self._heard_bytes = 0
        self._fence = Fence(self._child.kill, renewed_at=now, leash=self._child.leash)
        self._ingest = Ingest(run, self._child.events, held=lambda: not self._fence.fired)
        self._pace = Pace()

    def run(self) -> None:
        """Trains until the run has ended, rests, or is no longer ours. Whatever happens, no process of it is left."""
        self._fence.start()
        self._ingest.start()
        try:
            self._start()
            while self._child.exit_code is None:
                self._tick()
                time.sleep(TICK_SECONDS)
            self._end()
        except Fenced:
            log.warning("run %s attempt %s: fenced, stopped and wrote nothing", self._run.id, self._run.attempt)
        except Exception as failure:
            self._child.kill()
            self._give_up(failure)
            raise
        finally:
            self._child.kill()
            while not self._child.is_gone:
                time.sleep(TICK_SECONDS)
            self._fence.stop()
            self._ingest.close()
            self._child.clean()

    # -- while it runs ----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        attempts = range(self._run.attempt - 1, 0, -1) if self._run.is_resumable else ()
        earlier = [self._run.attempt_folder(number) / "checkpoints" for number in attempts]
        # Within the version's own folder: what one team has tokenised is never found by another, and goes with the version.
        cache = self._run.dataset_version.folder / "tokens"
        self._child.start(handed(self._run), [folder for folder in earlier if folder.is_dir()], token_cache=cache)
        self._fence.let_out()
        log.info("run %s attempt %s: child %s", self._run.id, self._run.attempt, self._child.pid)

    def _tick(self) -> None:
        now = clock()
        if self._fence.fired:
            raise Fenced
        if self._shutdown() and not self._asked:
            self._ask_to_stop("shutdown", ENV.stop_grace_seconds)
        self._mind_stall(now)
        if now >= self._kill_at:
            self._child.kill()
        try:
            self._keep(now)
            if now - self._shipped_at >= SHIP_SECONDS:
                self._shipped_at = now
                self._ship()
        except DatabaseError as failure:
            self._database_failed(failure)

    def _keep(self, now: float) -> None:
        """Renews the lease and reads the wish, each when it is due."""
        if now - self._beat_at >= ENV.heartbeat_seconds:
            self._beat_at = self._looked_at = now
            wanted = lease.renew(self._run.id, self._run.attempt, self._ingest.archive.last_step)
            if wanted is not None:
                self._fence.renewed(now)
                Worker.objects.filter(name=self._owner).update(seen_at=Now(), run=self._run.id)
        elif now - self._looked_at >= ENV.desired_poll_seconds:
            self._looked_at = now
            wanted = lease.desired(self._run.id, self._run.attempt)
        else:
            return
        if wanted is None:
            raise Fenced
        if wanted == Desired.CANCEL and self._asked != "cancel":
            self._ask_to_stop("cancel", ENV.cancel_grace_seconds)
        elif wanted == Desired.PAUSE and not self._asked:
            self._ask_to_stop("pause", ENV.stop_grace_seconds)
        elif wanted == Desired.EXTEND and not self._asked:
            self._ask_to_stop("extend", ENV.stop_grace_seconds)
        elif wanted == Desired.FINISH and self._loaded and not self._asked and not self._finishing:
            self._finishing = True
            self._child.finish()

    def _ask_to_stop(self, asked: Asked, grace_seconds: float) -> None:
        """SIGTERM now, SIGKILL when the grace is over. The state follows with the next batch, database or not."""
        log.info("run %s attempt %s: asked to stop (%s)", self._run.id, self._run.attempt, asked)
        self._asked = asked
        self._kill_at = min(self._kill_at, clock() + grace_seconds)
        self._child.terminate()
        self._shipped_at = 0

    def _mind_stall(self, now: float) -> None:
        """A child that writes nothing for too long hangs, even where it holds its lease."""
        size = self._child.events.stat().st_size if self._child.events.exists() else 0
        if size != self._heard_bytes:
            self._heard_bytes, self._heard_at = size, now
        elif now - self._heard_at > self._pace.stall_seconds and not self._asked:
            if size:
                self._child.dump()
            self._ask_to_stop("stalled", ENV.cancel_grace_seconds)

    def _ship(self) -> None:
        self._follow(self._ingest.ship())
        if self._asked:
            self._enter(State.STOPPING)
        elif self._exporting:
            self._enter(State.FINALIZING)
        elif self._loaded:
            self._enter(State.RUNNING)

    def _follow(self, events: Iterable[Event]) -> None:
        """Notes what the events say of the run's state. Nothing here can fail halfway."""
        for event in events:
            match event.kind:
                case "plan":
                    self._loaded = True
                case "step":
                    self._loaded = self._progressed = True
                    self._pace.step(event.t)
                case "phase":
                    self._enter_phase(event.data["name"])
                case "artifact":
                    self._artifacts.append(event.data)
                case "finished":
                    self._finished = event.data

    def _enter_phase(self, name: str) -> None:
        """What a phase says of the state: only a training has steps to wait for."""
        if self._run.kind == Kind.TRAIN:
            archive = self._ingest.archive
            trained = self._finishing or 0 < archive.total_steps <= archive.last_step
            self._exporting |= name == "merging" or (trained and name == "saving")
        else:
            self._loaded = True
            self._exporting |= name == "saving"

    def _enter(self, to: State) -> None:
        """Moves the run on to `to`, by way of `running` where `to` lies behind it."""
        if self._state == to:
            return
        if to == State.FINALIZING and self._state == State.STARTING:
            self._enter(State.RUNNING)
        fields: dict[str, Any] = {"started_at": Coalesce(F("started_at"), Now())} if to == State.RUNNING else {}
        frm = [state for state in ACTIVE if to in TRANSITIONS[state]]
        detail = self._asked if to == State.STOPPING else ""
        lease.move(self._run.id, self._run.attempt, to=to, frm=frm, actor=self._owner, detail=detail, **fields)
        self._state = to

    # -- at the end -------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        self._child.kill()
        self._until(lambda: self._child.is_gone)
        # Before the run is given away: whoever kills this process afterwards leaves nothing behind.
        self._fence.child_gone()
        self._child.clean()
        self._until(self._drained)
        exit_code = self._child.exit_code
        assert exit_code is not None  # noqa: S101
        outcome = decide(
            exit_code,
            asked=self._asked,
            finished=self._finished,
            progressed=self._progressed,
            log_tail=self._child.log_tail(),
            stall_seconds=self._pace.stall_seconds,
        )
        if outcome.kind == "succeeded":
            outcome = self._verified(outcome)
        outcome = memory.judged(outcome, self._run, self._ingest.archive.summary.get("phase") or {})
        log.info("run %s attempt %s: exit code %s, %s", self._run.id, self._run.attempt, exit_code, outcome.kind)
        self._until(lambda: self._settled(outcome))

    def _until(self, done: Callable[[], bool]) -> None:
        """Keeps the lease until `done`; a database that does not answer is asked again. Raises `Fenced`."""
        while True:
            if self._fence.fired:
                raise Fenced
            try:
                if done():
                    return
                self._keep(clock())
            except DatabaseError as failure:
                self._database_failed(failure)
            time.sleep(TICK_SECONDS)

    def _drained(self) -> bool:
        self._ship()
        return not self._ingest.is_behind

    def _verified(self, outcome: Outcome) -> Outcome:
        """The outcome after the files were read and found as they were written."""
        with ThreadPoolExecutor(1, thread_name_prefix="verify") as pool:
            reading = pool.submit(publish.verify, self._child.folder, self._artifacts)
            self._until(reading.done)
            failure = reading.exception()
        if isinstance(failure, GraftError):
            return Outcome("failed", of(failure, self._child.exit_code))
        if failure is not None:
            raise failure
        return outcome

    def _settled(self, outcome: Outcome) -> bool:
        """Writes the outcome. False where people have changed their mind at that moment: then it is to be asked again."""
        run_id, attempt = self._run.id, self._run.attempt
        if outcome.kind == "succeeded":
            self._enter(State.STOPPING if self._state == State.STOPPING else State.FINALIZING)
            return publish.succeed(run_id, attempt, self._artifacts, actor=self._owner) or self._lost()
        if outcome.kind == "stopped":
            return self._rested()
        assert outcome.failure is not None  # noqa: S101
        if outcome.kind == "failed":
            fields = outcome.failure.fields()
            return lease.move(run_id, attempt, to=State.FAILED, frm=ACTIVE, actor=self._owner, **fields) or self._lost()
        if outcome.kind == "smaller":
            return self._smaller(outcome.failure)
        found = lease.interrupt(
            run_id, attempt, actor=self._owner, detail=outcome.failure.code, failure=outcome.failure, retries=ENV.crash_retries
        )
        return found is not None or self._lost()

    def _smaller(self, failure: lease.Failure) -> bool:
        before = memory.batches_of(self._run)
        found = lease.interrupt(
            self._run.id,
            self._run.attempt,
            actor=self._owner,
            detail=f"{failure.code}: micro-batches of {before.halved()} in place of {before}",
            failure=failure,
            retries=memory.MOST_CUTS,
            counter="memory_cuts",
        )
        return found is not None or self._lost()

    def _rested(self) -> bool:
        wanted = lease.desired(self._run.id, self._run.attempt)
        if wanted is None:
            return self._lost()
        self._enter(State.STOPPING)
        frm, to = (State.STOPPING,), _REST[wanted]
        if to == State.QUEUED:
            return self._again(wanted)
        return lease.move(self._run.id, self._run.attempt, to=to, frm=frm, actor=self._owner, wanted=wanted)

    def _again(self, wanted: Desired) -> bool:
        """Back to the queue; an extended run keeps the place that it had, for it has not been given up."""
        fields: dict[str, Any] = {"desired": Desired.RUN, "queued_at": self._run.queued_at} if wanted == Desired.EXTEND else {}
        return lease.enqueue(self._run.id, self._run.attempt, frm=(State.STOPPING,), actor=self._owner, wanted=wanted, **fields)

    def _lost(self) -> bool:
        raise Fenced

    def _give_up(self, failure: Exception) -> None:
        """Something here went wrong, not in the training: the run is tried again, as after the loss of a worker."""
        error = GraftError("infra", count=ENV.infra_retries + 1, reason=str(failure) or type(failure).__name__)
        try:
            lease.interrupt(
                self._run.id,
                self._run.attempt,
                actor=self._owner,
                detail=type(failure).__name__,
                failure=of(error),
                retries=ENV.infra_retries,
            )
        except DatabaseError as second:
            # The lease will run out, and the reaper does the same.
            self._database_failed(second)

    def _database_failed(self, failure: DatabaseError) -> None:
        log.warning("run %s attempt %s: the database does not answer (%s)", self._run.id, self._run.attempt, failure)
        connection.close()
