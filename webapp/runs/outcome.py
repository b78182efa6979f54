"""What the end of a training child means for its run: a pure function of its exit code, of what it said, and of what we had asked."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Literal

from jobs.errors import CATALOGUE, ExitCode, GraftError
from webapp.runs.lease import Failure

Asked = Literal["", "pause", "extend", "cancel", "shutdown", "stalled"]
Kind = Literal["succeeded", "stopped", "failed", "interrupted", "smaller"]

_BY_EXIT_CODE = {ExitCode.NON_FINITE: "nonfinite", ExitCode.CUDA_OOM: "cuda_oom", ExitCode.DISK_FULL: "disk_full"}


@dataclass(frozen=True)
class Outcome:
    """`succeeded`: publish what it left; `stopped`: to where people want it; `failed`: for good; `interrupted`: through no fault of the
    user, to be tried again a few times; `smaller`: to be tried again in smaller micro-batches (`runs.memory`). The latter three say why.
    """

    kind: Kind
    failure: Failure | None = None


def decide(
    exit_code: int, *, asked: Asked, finished: dict[str, Any] | None, progressed: bool, log_tail: str, stall_seconds: float
) -> Outcome:
    """The outcome. `finished` is the data of the child's last event, `progressed` whether this attempt has made a step."""
    if exit_code == ExitCode.DONE:
        return Outcome("succeeded")
    if asked == "stalled":
        return Outcome("failed", of(GraftError("stalled", seconds=f"{stall_seconds:g}"), exit_code))
    # Whoever is asked to stop may die of it before it can write a checkpoint; then the one before it counts.
    if asked == "cancel" or (asked and (exit_code == ExitCode.PREEMPTED or exit_code < 0)):
        return Outcome("stopped")
    if exit_code == ExitCode.PREEMPTED or exit_code < 0:
        return _unasked(exit_code, progressed)
    return Outcome("failed", _said(exit_code, finished, log_tail) or _unsaid(exit_code, log_tail))


def _unasked(exit_code: int, progressed: bool) -> Outcome:
    """The outcome of a signal that we did not send."""
    if exit_code == ExitCode.PREEMPTED and progressed:
        return Outcome("stopped")
    if exit_code == ExitCode.PREEMPTED:
        # Where it comes before the first step each time, the run must not go round for ever.
        return Outcome("interrupted", of(GraftError("infra", count="several", reason="stopped before the first step"), exit_code))
    if exit_code == -signal.SIGKILL:
        return Outcome("interrupted", of(GraftError("host_oom"), exit_code))
    return Outcome("interrupted", of(GraftError("crashed", signal=signal_name(-exit_code)), exit_code))


def of(error: GraftError, exit_code: int | None = None) -> Failure:
    """The failure that an error of ours is."""
    return Failure(error.code, error.message, error.remedy, exit_code)


def signal_name(number: int) -> str:
    """`SIGSEGV` for 11, or the number where it has no name."""
    return signal.Signals(number).name if number in signal.valid_signals() else str(number)


def _said(exit_code: int, finished: dict[str, Any] | None, log_tail: str) -> Failure | None:
    """The failure in the child's own words; where something in Graft failed, with the end of its log, which names the place."""
    if not finished or finished.get("outcome") != "failed" or not finished.get("code"):
        return None
    message = str(finished.get("message") or "")
    if finished["code"] == "internal":
        message = f"{message}\n{log_tail}".strip()
    return Failure(
        str(finished["code"]), f"{message}{_place(message, finished.get('where') or {})}", str(finished.get("remedy") or ""), exit_code
    )


def _place(message: str, where: dict[str, Any]) -> str:
    """The place of an error, as far as its message does not name it. A path is cut to its name: the user knows the file, not our disk."""
    named = {key: PurePath(str(value)).name if key == "file" else value for key, value in where.items()}
    parts = [f"{key} {value}" for key, value in named.items() if str(value) not in message]
    return f" ({', '.join(parts)})" if parts else ""


def _unsaid(exit_code: int, log_tail: str) -> Failure:
    """The failure of a child that died without a word: what its exit code says, and the end of its log."""
    code = _BY_EXIT_CODE.get(exit_code, "internal")  # type: ignore[call-overload]
    if code != "internal":
        text = CATALOGUE[code]
        return Failure(code, f"Exit code {exit_code}.\n{log_tail}".strip(), text.remedy, exit_code)
    return of(GraftError("internal", reason=f"exit code {exit_code}\n{log_tail}".strip()), exit_code)
