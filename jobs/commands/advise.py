"""`python -m jobs advise`: which method and settings to take for a run, and what to ask less of where it does not fit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast, get_args

from jobs.cache import cache_folder
from jobs.device import Device
from jobs.errors import UserError
from jobs.planning.advice import Reduction
from jobs.planning.batches import RowLengths
from jobs.planning.estimate import Estimate
from jobs.planning.outcomes import Outcome
from jobs.planning.recommend import Recommendation, Situation, recommend
from jobs.planning.rules import Wish
from jobs.spec import RunSpec, load_spec, read_json

HELP = "recommend methods and settings for a run, and say what to ask less of where it does not fit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The spec, what is wished for, and what else is known."""
    parser.add_argument("spec", type=Path, help="the run's spec, a JSON file")
    parser.add_argument("--wish", choices=get_args(Wish), default="quality", help="what counts most (%(default)s)")
    parser.add_argument(
        "--device", type=Path, metavar="FILE", help="the workers' device, as `jobs device --json` prints it, if not this one"
    )
    parser.add_argument("--memory", type=int, metavar="BYTES", help="memory of the workers, where it is not the device's")
    parser.add_argument("--rows", type=int, metavar="N", help="training rows of the file, where they have been counted")
    parser.add_argument("--languages", default="", metavar="CODES", help="languages of the rows, such as en,ja")
    parser.add_argument("--past", type=Path, metavar="FILE", help="the team's own finished runs, a JSON array (docs/advice.md)")
    parser.add_argument("--without", default="", metavar="LIST", help="methods that do not come into question, such as qlora,dora")
    parser.add_argument(
        "--each", type=Path, metavar="FILE", help="other methods for the same run, a JSON array of objects with `method` and `training`"
    )
    parser.add_argument("--keep-engine", action="store_true", help="change nothing of the spec's engine, as a form that has none of it")
    parser.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help="where measurements are kept (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints three recommendations, and for the spec as it stands what it would take, or the changes that make it fit."""
    spec, past = load_spec(arguments.spec), _past(arguments.past)
    situation = _situation(arguments, spec, past)
    found = recommend(situation, arguments.wish)
    less: Sequence[Reduction] = ()
    current, refusal = None, None
    try:
        current, less = situation.estimate(spec), situation.less(spec)
    except UserError as refused:
        refusal = refused
    if arguments.json:
        each = [_each(situation, spec, one) for one in _others(arguments.each)]
        sys.stdout.write(json.dumps(_json(situation, found, current, refusal, less) | {"each": each}) + "\n")
    else:
        sys.stdout.write(_words(found, current, refusal, less))
    return 0


def _situation(arguments: argparse.Namespace, spec: RunSpec, past: Sequence[Outcome]) -> Situation:
    """What is known of device, model and rows. Raises `UserError`."""
    from jobs.planning.calibration import read_calibration
    from jobs.planning.lengths import row_lengths
    from jobs.planning.shape import read_shape

    device = _device(arguments.device)
    if arguments.memory is not None:
        device = {**device, "memory_bytes": arguments.memory}
    shape = read_shape(Path(spec.model.path))
    # rows of other tasks are laid out in ways that the estimate does not know
    written = spec.task in ("causal_lm", "seq2seq_lm")
    lengths = row_lengths(spec, arguments.rows) if written else RowLengths.unknown(spec.training, shape.context)
    return Situation(
        spec,
        device,
        shape,
        lengths,
        read_calibration(arguments.cache, device, shape),
        languages=_listed(arguments.languages),
        past=tuple(past),
        without=frozenset(_listed(arguments.without)),
        keep_engine=arguments.keep_engine,
    )


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _device(path: Path | None) -> Device:
    """The device of the file `path`, else of this machine. Raises `UserError`."""
    from jobs.models.device import probe

    if path is None:
        return probe()
    body = read_json(path)
    missing = [key for key in Device.__required_keys__ if not isinstance(body, dict) or key not in body]
    if missing:
        reason = f"it lacks {', '.join(sorted(missing))}"
        raise UserError("spec_bad_value", field="--device", value=repr(str(path)), reason=reason, where={"file": str(path)})
    return cast(Device, body)


def _past(path: Path | None) -> list[Outcome]:
    """Raises `UserError`."""
    if path is None:
        return []
    body = read_json(path)
    if not isinstance(body, list) or not all(isinstance(one, dict) for one in body):
        reason = "it must be an array of objects"
        raise UserError("spec_bad_value", field="--past", value=repr(str(path)), reason=reason, where={"file": str(path)})
    return [Outcome.from_json(one) for one in body]


def _others(path: Path | None) -> list[dict[str, Any]]:
    """The methods and trainings of `--each`. Raises `UserError`."""
    if path is None:
        return []
    body = read_json(path)
    if not isinstance(body, list) or not all(isinstance(one, dict) and set(one) == {"method", "training"} for one in body):
        reason = "it must be an array of objects with method and training"
        raise UserError("spec_bad_value", field="--each", value=repr(str(path)), reason=reason, where={"file": str(path)})
    return body


def _each(situation: Situation, spec: RunSpec, one: dict[str, Any]) -> dict[str, Any]:
    """What the run would take with this method and training: the estimate and its time, or why it cannot be."""
    try:
        wanted = RunSpec.from_json({**spec.to_json(), **one})
        found = situation.estimate(wanted)
    except UserError as refused:
        return {"estimate": None, "timing": None, "refusal": refused.to_json()}
    timing = situation.timing(wanted, found)
    return {"estimate": found.to_json(), "timing": timing and asdict(timing), "refusal": None}


def _json(
    situation: Situation, found: Sequence[Recommendation], current: Estimate | None, refusal: UserError | None, less: Sequence[Reduction]
) -> dict[str, Any]:
    timing = situation.timing(situation.spec, current) if current else None
    return {
        "recommendations": [one.to_json() for one in found],
        "fits": bool(current and current.fits),
        "estimate": current and current.to_json(),
        "timing": timing and asdict(timing),
        "refusal": refusal and refusal.to_json(),
        "less": [{"change": one.change, "peak": one.peak, "fits": one.fits, "spec": one.spec.to_json()} for one in less],
    }


def _words(found: Sequence[Recommendation], current: Estimate | None, refusal: UserError | None, less: Sequence[Reduction]) -> str:
    lines = [line for number, one in enumerate(found, start=1) for line in _recommended(number, one)]
    if refusal:
        lines += ["", f"The spec as it stands cannot be launched: {refusal.message} {refusal.remedy}"]
    elif current and not current.fits:
        together = "Together, in this order:" if less else "Nothing that is known here saves enough to be worth it."
        lines += ["", f"The spec as it stands does not fit. {together}"]
        lines += [f"  - {one.change} Then {_size(one.peak)}{', which fits' if one.fits else ''}." for one in less]
    return "\n".join(lines) + "\n"


def _recommended(number: int, one: Recommendation) -> list[str]:
    settings = ", ".join(f"{name} {value}" for name, value in one.spec.method.settings.items()) or "default settings"
    training = one.spec.training
    verdict = "" if one.estimate.fits else " It does not fit."
    time = f", about {one.timing.seconds / 60:.0f} min" if one.timing else ""
    return [
        f"{number}. {one.spec.method.id}: {settings}; {training.epochs:g} epochs, micro-batch {training.micro_batch} x "
        f"{training.gradient_accumulation}; {_size(one.estimate.memory.peak)} at the peak{time}.{verdict}",
        f"   {one.reason} ({one.source})",
        *(f"   - {change}" for change in one.changes),
    ]


def _size(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"
