"""A training run under the allocator's eye: `python -m benchmarks.memory spec.json` prints one JSON object: the peak of its first steps, or
with `--phases` that of each phase of the whole run, from loading to the artifacts.

What is measured is the engine's own memory: every block that torch's allocator hands out while it trains. On CUDA that is
`torch.cuda.max_memory_allocated`. On a CPU torch keeps no such counter, but its profiler records each allocation and release of the CPU
allocator with its size; their running sum, upon the tensors that exist when training begins (the model, whose tensors may be maps of its
files and so were never allocated), has the peak. Not in it: Python and its libraries, thread stacks, what oneDNN and MKL take for
themselves, and what malloc keeps back.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.peers.common import peak_rss_bytes
from jobs.data.token_cache import TokenCache
from jobs.errors import GraftError
from jobs.models.device import owned_threads
from jobs.run import execute
from jobs.spec import load_spec

MEMORY_EVENT = "[memory]"


class Meter:
    """The allocator's peak between `begin` and `end`, in bytes; both upon the tensors that exist at the begin."""

    def __init__(self, device: str) -> None:
        self.device, self.begin_bytes = device, 0
        self._profile: profile | None = None

    def begin(self) -> None:
        """Starts to watch."""
        self.begin_bytes = live_bytes(self.device)
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        else:
            self._profile = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self._profile.start()

    def end(self, mapped: Container[int] = ()) -> int:
        """The peak since the begin. `mapped` are sizes of files that are only read: torch counts the mapping of one as an allocation,
        though its pages can go at any time. What is in use of them at the end counts.
        """
        if self._profile is None:
            return int(torch.cuda.max_memory_allocated())
        self._profile.stop()
        found = self.begin_bytes + highest(self._profile, mapped)
        return max(found, live_bytes(self.device)) if mapped else found


class Watch:
    """The `emit` of a run: watches from the moment that training begins, and asks the run to end after `steps` steps."""

    def __init__(self, steps: int, device: str) -> None:
        self.steps, self.meter = steps, Meter(device)
        self.result: dict[str, Any] = {}
        self.done = False

    def __call__(self, kind: str, /, **data: Any) -> None:
        """Takes one event of the run."""
        if kind == "plan":
            self.result["plan"] = {key: data[key] for key in ("train_rows", "train_tokens", "label_tokens", "max_length", "batching")}
        elif kind == "phase" and data["name"] == "training" and "begin_bytes" not in self.result:
            self.meter.begin()
            self.result["begin_bytes"] = self.meter.begin_bytes
        elif kind == "warning":
            self.result.setdefault("warnings", []).append(data["message"])
        elif kind == "step":
            self.result.setdefault("tokens_per_second", []).append(data["tokens_per_second"])
            if data["step"] == self.steps:
                self.result["peak_bytes"] = self.meter.end()
                self.done = True


class Phases:
    """The `emit` of a whole run: the peak of every phase in bytes, named as the estimate names them."""

    def __init__(self, device: str, model: Path) -> None:
        self.peaks: dict[str, int] = {}
        self._meter = Meter(device)
        self._read = {path.stat().st_size for path in model.glob("*.safetensors")}
        self._phase: str | None = None
        self._trained = self._stored = False

    def __call__(self, kind: str, /, **data: Any) -> None:
        """Takes one event of the run."""
        if kind == "step":
            self._trained = data["eta_seconds"] == 0
        elif kind == "eval" and self._trained and data["model"] == "tuned":
            self.enter("exporting")  # begins without an event, with the logits that the export is held to
        elif kind == "phase" and data["name"] != "tokenizing":
            self._stored |= data["name"] in ("merging", "saving")
            loaded = data["name"] == "loading" and data["done"]
            self.enter("exporting" if self._stored else "preparing" if loaded else data["name"])

    def enter(self, phase: str | None) -> None:
        """Closes the phase before, unless it goes on."""
        if phase == self._phase:
            return
        if self._phase:
            peak = self._meter.end(self._read if self._phase == "loading" else ())
            self.peaks[self._phase] = max(peak, self.peaks.get(self._phase, 0))
        self._phase = phase
        if phase:
            self._meter.begin()


def live_bytes(device: str) -> int:
    """Bytes of all tensors that exist now, each storage counted once."""
    if device == "cuda":
        return int(torch.cuda.memory_allocated())
    gc.collect()
    storages: dict[int, int] = {}
    for found in gc.get_objects():
        if not issubclass(type(found), torch.Tensor) or isinstance(found, FakeTensor) or found.device.type != "cpu":
            continue
        if found.is_mkldnn:  # oneDNN's own layout has no storage to ask
            storages[id(found)] = found.numel() * found.element_size()
        elif found.layout == torch.strided:
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def highest(profiled: profile, mapped: Container[int] = ()) -> int:
    """The highest running sum of all CPU allocations and releases, in bytes, from zero at the profile's begin; those of a size in `mapped`
    are left out.
    """
    assert profiled.profiler is not None
    assert profiled.profiler.kineto_results is not None
    # torch's stub of an event does not know `nbytes`.
    events: list[Any] = [event for event in profiled.profiler.kineto_results.events() if event.name() == MEMORY_EVENT]
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes() if abs(event.nbytes()) not in mapped else 0
        peak = max(peak, level)
    return peak


def measure(spec_path: Path, out: Path, steps: int) -> dict[str, Any]:
    """Trains `steps` steps of a spec; returns `begin_bytes peak_bytes tokens_per_second plan`, and `resident_bytes`, the process's peak."""
    watch = Watch(steps, _device())
    try:
        _execute(spec_path, out, watch, lambda: watch.done)
    except GraftError as stopped:
        if stopped.code != "preempted":
            raise
    return {**watch.result, "resident_bytes": peak_rss_bytes()}


def measure_phases(spec_path: Path, out: Path) -> dict[str, Any]:
    """Carries a spec out; returns the peaks by phase (`phases`), and `resident_bytes`, the process's peak."""
    phases = Phases(_device(), Path(load_spec(spec_path).model.path))
    _execute(spec_path, out, phases, lambda: False)
    phases.enter(None)
    return {"phases": phases.peaks, "resident_bytes": peak_rss_bytes()}


def _execute(spec_path: Path, out: Path, emit: Callable[..., None], stop: Callable[[], bool]) -> None:
    torch.set_num_threads(owned_threads())
    execute(load_spec(spec_path), out, [], emit=emit, stop=stop, cache=TokenCache(out / "tokens"))


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--steps", type=int, default=2, help="steps to train (%(default)s)")
    parser.add_argument("--phases", action="store_true", help="the whole run, phase by phase")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        print(json.dumps(measure_phases(arguments.spec, out) if arguments.phases else measure(arguments.spec, out, arguments.steps)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
