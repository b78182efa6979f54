"""`python -m jobs estimate`: what a run would take, before it is launched."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from jobs.cache import cache_folder
from jobs.planning.estimate import Estimate

HELP = "say what a run would take in memory and time, and what to change where it does not fit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("spec", type=Path, help="the run's spec, a JSON file")
    parser.add_argument("--calibrate", action="store_true", help="measure this device anew, even where it was measured before")
    parser.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help="where measurements are kept (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the estimate. The device is measured at the first estimate with a model of these widths."""
    from jobs.geometry import default_folder
    from jobs.models.device import probe
    from jobs.planning.calibration import calibrate, read_calibration
    from jobs.planning.estimate import estimate
    from jobs.planning.lengths import count_labels, row_lengths
    from jobs.planning.shape import read_shape
    from jobs.spec import load_spec

    spec, device = load_spec(arguments.spec), probe()
    shape = read_shape(Path(spec.model.path))
    calibration = None if arguments.calibrate else read_calibration(arguments.cache, device, shape)
    calibration = calibration or calibrate(arguments.cache, device, shape)
    labels = count_labels(spec)
    found = estimate(spec, device, shape, row_lengths(spec), calibration=calibration, regions=default_folder(), labels=labels)
    sys.stdout.write(json.dumps(found.to_json()) + "\n" if arguments.json else _table(found))
    return 0


def _table(found: Estimate) -> str:
    memory = found.memory
    lines = ["Parameters"]
    lines += [f"  {part:<34}{count:>16,}" for part, count in found.parameters.items()]
    lines += [f"  {'trained':<34}{_trained(found)}", "", f"Memory at the peak of training ({memory.moment})"]
    lines += [f"  {part:<34}{_size(size):>16}" for part, size in memory.parts.items()]
    lines += [f"  {'Python and its libraries':<34}{_size(memory.runtime):>16}", "", "Memory by phase, all together"]
    lines += [f"  {phase:<34}{_size(size + memory.runtime):>16}" for phase, size in memory.phases.items()]
    lines += ["", _verdict(found)]
    lines += [
        f"  - {advice.change} Saves {_size(advice.saves_bytes)}{'' if advice.fits else ', not enough by itself'}."
        for advice in found.advice
    ]
    if found.guess:
        lines.append(found.guess)
    if not found.rows_known:
        lines.append("The rows could not be looked at: their lengths are a guess.")
    if found.speed and found.seconds is not None:
        speed, seconds = found.speed, found.seconds
        lines += [
            "",
            f"Time: {found.steps:,} steps, about {_time(seconds)} of training "
            f"({_time(seconds * speed.tokens_per_second / speed.high)} to {_time(seconds * speed.tokens_per_second / speed.low)})",
            f"  {speed.tokens_per_second:,.0f} tokens/s ({speed.low:,.0f} to {speed.high:,.0f}), from {speed.basis}",
        ]
    return "\n".join(lines) + "\n"


def _trained(found: Estimate) -> str:
    if found.trained_parameters is None:
        return f"{'not known yet':>16}: {found.trained_unknown}"
    return f"{found.trained_parameters:>16,} ({found.trained_parameters / sum(found.parameters.values()):.3%} of the base)"


def _verdict(found: Estimate) -> str:
    need, have = _size(found.memory.peak), _size(found.device_bytes)
    if found.fits:
        return f"It fits: {need} of {have} at the most ({found.memory.peak_phase})."
    return f"It does not fit: {need} at the most ({found.memory.peak_phase}), and the device has {have}. What would help, each by itself:"


def _size(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB" if size < 2**30 else f"{size / 2**30:,.2f} GiB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
