"""`python -m jobs train`: one run, from a spec file to its artifacts, as a program of its own."""

from __future__ import annotations

import argparse
import ctypes
import errno
import faulthandler
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from jobs.cache import cache_folder
from jobs.commands.reach import leave_to_others
from jobs.data.token_cache import LIMIT_BYTES, TokenCache
from jobs.errors import ExitCode, GraftError
from jobs.events import Event, EventWriter
from jobs.imports import import_engine, leave_out_bitsandbytes
from jobs.leash import Leash
from jobs.methods.entry import Method
from jobs.methods.registry import get_method
from jobs.models.device import owned_threads
from jobs.parent import die_with
from jobs.spec import RunSpec, load_spec, write_spec

HELP = "fine-tune a model as a spec file says"
Emit = Callable[..., Any]
# Of the arguments, what writes events, and what says whether an end is wanted; gives the step that it ended at.
Work = Callable[[argparse.Namespace, Emit, "_Stop"], int]
_OOM_SCORE = "800"
# What the driver and cuBLAS say where torch's own allocator was not the one that asked.
_CUDA_OOM = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
# From <malloc.h>; the first threshold is the largest that glibc takes.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MMAP_THRESHOLD_BYTES, _TRIM_THRESHOLD_BYTES = 2**25, 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The spec, where to write, where to look for checkpoints, and whose death is ours."""
    add_child_arguments(parser)
    parser.add_argument("--resume", type=Path, nargs="*", action="extend", default=[], metavar="DIR", help="where checkpoints may be")


def add_child_arguments(parser: argparse.ArgumentParser) -> None:
    """What every program takes that a supervisor starts: the spec, where to write, where token ids are kept, and whose death is ours."""
    parser.add_argument("spec", type=Path, help="the run's spec, a JSON file")
    parser.add_argument("--out", type=Path, required=True, help="the folder for events, checkpoints and artifacts")
    tokens = cache_folder() / "tokens"
    parser.add_argument("--token-cache", type=Path, default=tokens, metavar="DIR", help="where token ids are kept (%(default)s)")
    parser.add_argument("--token-cache-bytes", type=int, default=LIMIT_BYTES, metavar="N", help="how much of them is kept (%(default)s)")
    parser.add_argument("--parent-pid", type=int, help="end at once when this process, our parent, ends")
    parser.add_argument("--leash", type=Path, metavar="FILE", help="end at once when the time that this file names is over")
    parser.add_argument("--private", type=Path, metavar="DIR", help="give up this folder but for what the run names, and all connections")


def run(arguments: argparse.Namespace) -> int:
    """Runs, writes `events.jsonl` and returns an exit code of `jobs.errors.ExitCode`. Raises `GraftError` where the run failed."""
    return carry_out(arguments, _train)


def carry_out(arguments: argparse.Namespace, work: Work) -> int:
    """Does `work` as a supervised child does: its events in `events.jsonl`, stopped by SIGTERM, every way to end told by a `finished`
    event. Returns an exit code, or raises `GraftError` where the work failed.
    """
    if arguments.parent_pid is not None and not die_with(arguments.parent_pid):
        return ExitCode.INTERNAL
    leave_to_others(arguments)
    stop = _Stop()
    leash = Leash(arguments.leash) if arguments.leash else None
    if leash:
        leash.start()
    if arguments.parent_pid is not None:
        be_first_to_go()
    # Where a supervisor finds that nothing happens any more, it asks by this signal for the stack of every thread, in the log.
    faulthandler.register(signal.SIGUSR2, file=2)  # the descriptor: a test may have put something else into sys.stderr
    prepare_environment()
    arguments.out.mkdir(parents=True, exist_ok=True)
    writer = EventWriter(arguments.out / "events.jsonl", leash.look if leash else bool)
    show = _show_json if arguments.json else _show_text if sys.stderr.isatty() else None
    try:
        return _finish(arguments, _Emitter(writer, show), stop, work)
    finally:
        # On a full disk what is still to be written cannot be, and how it ended is told by the exit code.
        with suppress(OSError):
            writer.close()


def _finish(arguments: argparse.Namespace, emit: _Emitter, stop: _Stop, work: Work) -> int:
    """The work, with every way to end told by a `finished` event."""
    try:
        step = work(arguments, emit, stop)
    except GraftError as error:
        outcome = "preempted" if error.code == "preempted" else "failed"
        _tell_end(emit, outcome, error)
        if outcome == "preempted":
            return ExitCode.PREEMPTED
        raise
    except Exception as failure:
        known = _known(failure, arguments.out, emit.step)
        with suppress(OSError):
            traceback.print_exc()
        _tell_end(emit, "failed", known)
        raise known from failure
    emit("finished", outcome="succeeded", step=step)
    return ExitCode.DONE


def _tell_end(emit: _Emitter, outcome: str, error: GraftError) -> None:
    """The last event, where there is room for it: else the exit code alone says how it ended."""
    with suppress(OSError):
        emit("finished", outcome=outcome, step=emit.step, **error.to_json())


def _train(arguments: argparse.Namespace, emit: Emit, stop: _Stop) -> int:
    """The run; returns the step it ended at."""
    spec = load_spec(arguments.spec)
    method = get_method(spec.method.id)
    method.resolve(dict(spec.method.settings))  # before torch is loaded: a wrong spec is refused at once
    load_engine(spec, method, emit)
    from jobs.run import execute

    write_spec(spec, arguments.out)
    cache = TokenCache(arguments.token_cache, arguments.token_cache_bytes)
    return execute(spec, arguments.out, arguments.resume, emit=emit, stop=stop, cache=cache, finish=stop.finish)


def load_engine(spec: RunSpec, method: Method, emit: Emit) -> None:
    """Loads what this run needs, and tells how long that took: next to nothing where the process was started ahead."""
    started = time.monotonic()
    leave_out_bitsandbytes(spec, method)
    import_engine(peft=method.capabilities.adapter)
    emit("log", level="info", message=f"Imports took {time.monotonic() - started:.2f} s.")


def _known(failure: Exception, out: Path, step: int) -> GraftError:
    """Which of our errors an exception of Python or torch is."""
    import torch

    if isinstance(failure, torch.OutOfMemoryError) or any(words in str(failure) for words in _CUDA_OOM):
        return GraftError("cuda_oom", step=step)
    if isinstance(failure, MemoryError) or "DefaultCPUAllocator: can't allocate memory" in str(failure):
        return GraftError("host_oom")
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        return GraftError("disk_full", path=failure.filename or out)
    return GraftError("internal", reason=f"{type(failure).__name__}: {failure}"[:500])


def be_first_to_go() -> None:
    """Has the kernel take this process before those of the site where the machine runs out of memory."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")


def prepare_environment() -> None:
    """Must come before torch is imported: its thread pools read the environment once, and nothing may be asked of the network."""
    threads = str(owned_threads())
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = threads
    # A thread that waits spins for some microseconds, then sleeps: spinning on (the default), it slows training down several-fold as soon
    # as another process is busy on the same cores; sleeping at once costs a quarter of the speed of an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true")
    keep_freed_memory()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def keep_freed_memory() -> None:
    """Tells glibc to keep what is freed for the next step, in place of giving each large tensor back to the kernel and asking for it anew,
    page by page: 5 to 10 % of a step. Without effect on another C library.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD_BYTES)


class _Stop:
    """True from the first SIGTERM or Ctrl-C on: the step in hand is finished and a checkpoint written. A second Ctrl-C ends at once.

    `finish` is true from the first SIGUSR1 on: a training ends after the step in hand, then measures and exports what it has.
    """

    def __init__(self) -> None:
        self._asked = self._finishing = False
        signal.signal(signal.SIGUSR1, self._ask_to_finish)
        signal.signal(signal.SIGTERM, self._ask)
        signal.signal(signal.SIGINT, self._ask)

    def __call__(self) -> bool:
        return self._asked

    def finish(self) -> bool:
        """Whether the training is to end after the step in hand."""
        return self._finishing

    def _ask_to_finish(self, number: int, frame: FrameType | None) -> None:
        self._finishing = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked = True


class _Emitter:
    """Writes events, shows them, and knows the last step told. A phase's progress is told at most twice a second, and at its ends."""

    PHASE_SECONDS = 0.5

    def __init__(self, writer: EventWriter, show: Callable[[Event], None] | None) -> None:
        self._writer, self._show = writer, show
        self._told = 0.0
        self.step = 0

    def __call__(self, kind: Any, /, **data: Any) -> None:
        now = time.monotonic()
        if kind == "phase":
            if now - self._told < self.PHASE_SECONDS and data["done"] not in (0, data["total"]):
                return
            self._told = now
        event = self._writer.emit(kind, **data)
        self.step = data.get("start_step", data.get("step")) or self.step
        if self._show:
            self._show(event)


def _show_json(event: Event) -> None:
    sys.stdout.write(event.to_line())
    sys.stdout.flush()


def _show_text(event: Event) -> None:
    """A line for a person."""
    if event.kind in _TEXT:
        sys.stderr.write(f"{event.kind:>10}  {_TEXT[event.kind](event.data)}\n")


def _number(value: Any, form: str) -> str:
    return "-" if value is None else format(value, form)


_TEXT: dict[str, Callable[[dict[str, Any]], str]] = {
    "phase": lambda data: f"{data['name']} {data['done']} of {data['total'] or '?'} {data['unit']}",
    "plan": lambda data: f"{data['total_steps']} steps of {data['effective_batch']} rows, {data['batching']}, {data['precision']}",
    "step": lambda data: (
        f"{data['step']}  loss {_number(data['loss'], '.4f')}  rate {data['learning_rate']:.2e}  "
        f"{data['tokens_per_second']:.0f} tokens/s  {data['eta_seconds']:.0f} s left"
    ),
    "eval": lambda data: (
        f"{data['model']} on {data['split']}: loss {_number(data['loss'], '.4f')}, "
        f"token accuracy {_number(data['token_accuracy'], '.3f')}, exact match {_number(data['exact_match'], '.3f')}"
    ),
    "checkpoint": lambda data: data["path"],
    "artifact": lambda data: f"{data['path']} ({data['bytes'] / 1e6:.1f} MB)",
    "warning": lambda data: f"{data['message']} {data['remedy']}",
    "log": lambda data: data["message"],
    "finished": lambda data: f"{data['outcome']} at step {data['step']}. {data.get('message', '')}",
}
