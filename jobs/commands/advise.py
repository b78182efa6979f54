"""`python -m jobs advise`: which method and settings to take for a run, and what to ask less of where it does not fit."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from jobs.cache import cache_folder
from jobs.errors import UserError
from jobs.planning.advice import Reduction
from jobs.planning.batches import RowLengths
from jobs.planning.recommend import Outcome, Recommendation, Situation, recommend
from jobs.planning.rules import Wish

HELP = "recommend methods and settings for a run, and say what to ask less of where it does not fit"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The spec, what is wished for, and what else is known."""
    parser.add_argument("spec", type=Path, help="the run's spec, a JSON file")
    parser.add_argument("--wish", choices=get_args(Wish), default="quality", help="what counts most (%(default)s)")
    parser.add_argument("--memory", type=int, metavar="BYTES", help="memory of the workers, where it is not this machine's")
    parser.add_argument("--languages", default="", metavar="CODES", help="languages of the rows, such as en,ja")
    parser.add_argument("--past", type=Path, metavar="FILE", help="the team's own finished runs, a JSON array (docs/advice.md)")
    parser.add_argument("--cache", type=Path, default=cache_folder(), metavar="DIR", help="where measurements are kept (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints three recommendations, and for the spec as it stands the changes that make it fit."""
    from jobs.models.device import probe
    from jobs.planning.calibration import read_calibration
    from jobs.planning.lengths import row_lengths
    from jobs.planning.shape import read_shape
    from jobs.spec import load_spec

    past = _past(arguments.past)
    spec, device = load_spec(arguments.spec), probe()
    if arguments.memory is not None:
        device = {**device, "memory_bytes": arguments.memory}
    shape = read_shape(Path(spec.model.path))
    languages = tuple(code.strip() for code in arguments.languages.split(",") if code.strip())
    calibration = read_calibration(arguments.cache, device, shape)
    # rows of other tasks are laid out in ways that the estimate does not know
    lengths = row_lengths(spec) if spec.task in ("causal_lm", "seq2seq_lm") else RowLengths.unknown(spec.training, shape.context)
    situation = Situation(spec, device, shape, lengths, calibration, languages)
    found, less = recommend(situation, arguments.wish, past), situation.less(spec)
    fits = situation.estimate(spec).fits
    sys.stdout.write(json.dumps(_json(found, less, fits=fits)) + "\n" if arguments.json else _words(found, less, fits=fits))
    return 0


def _past(path: Path | None) -> list[Outcome]:
    """Raises `UserError`."""
    if path is None:
        return []
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("file_missing", path=path, where={"file": str(path)}) from None
    except ValueError as failure:
        raise UserError("spec_not_json", reason=failure, where={"file": str(path)}) from None
    if not isinstance(body, list) or not all(isinstance(one, dict) for one in body):
        reason = "it must be an array of objects"
        raise UserError("spec_bad_value", field="--past", value=repr(str(path)), reason=reason, where={"file": str(path)})
    return [Outcome.from_json(one) for one in body]


def _json(found: Sequence[Recommendation], less: Sequence[Reduction], *, fits: bool) -> dict[str, Any]:
    asked = [{"change": one.change, "peak": one.peak, "fits": one.fits, "spec": one.spec.to_json()} for one in less]
    return {"recommendations": [one.to_json() for one in found], "fits": fits, "less": asked}


def _words(found: Sequence[Recommendation], less: Sequence[Reduction], *, fits: bool) -> str:
    lines = []
    for number, one in enumerate(found, start=1):
        settings = ", ".join(f"{name} {value}" for name, value in one.spec.method.settings.items()) or "default settings"
        training = one.spec.training
        verdict = "" if one.estimate.fits else " It does not fit."
        time = f", about {one.estimate.seconds / 60:.0f} min" if one.estimate.seconds is not None else ""
        lines += [
            f"{number}. {one.spec.method.id}: {settings}; {training.epochs:g} epochs, micro-batch {training.micro_batch} x "
            f"{training.gradient_accumulation}; {_size(one.estimate.memory.peak)} at the peak{time}.{verdict}",
            f"   {one.reason} ({one.source})",
            *(f"   - {change}" for change in one.changes),
        ]
    if not fits:
        together = "Together, in this order:" if less else "Nothing that is known here saves enough to be worth it."
        lines += ["", f"The spec as it stands does not fit. {together}"]
        lines += [f"  - {one.change} Then {_size(one.peak)}{', which fits' if one.fits else ''}." for one in less]
    return "\n".join(lines) + "\n"


def _size(size: float) -> str:
    return f"{size / 2**30:,.2f} GiB"
