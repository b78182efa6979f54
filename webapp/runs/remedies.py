"""What may help a run that failed: each remedy is the form of a new run, filled like this one but for what is to change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django.urls import reverse
from django.utils.translation import gettext as _

from jobs.methods.registry import METHODS, get_method
from jobs.planning.estimate import USABLE_SHARE
from webapp.core import formats
from webapp.runs.filling import Values, to_query
from webapp.runs.kinds import Kind
from webapp.runs.memory import OUT_OF_MEMORY, fields_of
from webapp.runs.models import Run
from webapp.runs.services.expected import Expected, expected
from webapp.runs.states import State

# A rate that has led out of the finite numbers is taken down by this much.
RATE_CUT = 3.0
# What the names of the form's fields of the training begin with.
TRAINING = "training_"


@dataclass(frozen=True)
class Remedy:
    """What it does, in words, and where the click leads; where known, what the run is then to take in bytes, and whether that fits."""

    words: str
    url: str
    peak_bytes: int | None = None
    fits: bool = False


@dataclass(frozen=True)
class Shortage:
    """What a run that ran out of memory was to take, and what it may take of its device, both in bytes."""

    peak_bytes: int
    usable_bytes: float


def remedies(run: Run) -> list[Remedy]:
    """Those for the way in which the run failed, the likeliest first; none for one that has not."""
    if run.state != State.FAILED or run.kind != Kind.TRAIN or run.method not in METHODS:
        return []
    if run.failure_code in OUT_OF_MEMORY:
        return _less_memory(run)
    if run.failure_code == "nonfinite":
        return _calmer(run)
    return []


def shortage(run: Run) -> Shortage | None:
    """Beside the remedies of a run that ran out of memory; None for others, and where its estimate is not known."""
    if run.failure_code not in OUT_OF_MEMORY or run.state != State.FAILED or (known := expected(run)) is None:
        return None
    return Shortage(known.found.memory.peak, USABLE_SHARE * known.found.device_bytes)


def data_link(run: Run, where: dict[str, Any]) -> str:
    """The page of the data, where the failure names a place in it; else nothing."""
    if not {"file", "line", "row", "split"} & where.keys():
        return ""
    return reverse("datasets:version", args=[run.dataset_version_id])


def _less_memory(run: Run) -> list[Remedy]:
    training = {**run.spec["training"], **fields_of(run)}
    micro, steps = training["micro_batch"], training["gradient_accumulation"]
    checkpointing = not training["gradient_checkpointing"] and get_method(run.method).capabilities.checkpointing
    halved: Values = {"training_micro_batch": max(1, micro // 2), "training_gradient_accumulation": steps * 2} if micro > 1 else {}
    kept: Values = {"training_gradient_checkpointing": True} if checkpointing else {}
    known = expected(run)
    found = []
    if halved and kept:
        words = _("Micro-batch %(new)s instead of %(old)s, and gradient checkpointing") % {
            "new": halved["training_micro_batch"],
            "old": micro,
        }
        found.append(_smaller(run, known, words, {**halved, **kept}))
    if halved:
        words = _("Micro-batch %(new)s instead of %(old)s, with the accumulation doubled: the same steps, in smaller pieces")
        found.append(_smaller(run, known, words % {"new": halved["training_micro_batch"], "old": micro}, halved))
    if kept:
        found.append(_smaller(run, known, _("Gradient checkpointing: activations are computed twice and take less memory"), kept))
    length = (run.summary.get("plan") or {}).get("max_length") or training["max_length"]
    if length and length > 64:
        words = _("Rows of at most %(new)s tokens instead of %(old)s: longer ones are cut") % {"new": length // 2, "old": length}
        found.append(_smaller(run, known, words, {"training_max_length": length // 2}))
    return found


def _calmer(run: Run) -> list[Remedy]:
    training = run.spec["training"]
    rate = training["learning_rate"] or get_method(run.method).learning_rate
    lower = float(f"{rate / RATE_CUT:.1g}")
    words = {"new": formats.format_rate(lower), "old": formats.format_rate(rate)}
    found = [_remedy(run, _("Learning rate %(new)s instead of %(old)s") % words, {"training_learning_rate": lower})]
    if (run.summary.get("plan") or {}).get("precision") != "float32":
        found.append(_remedy(run, _("Arithmetic in 32 bits: slower, with a far wider range"), {"training_precision": "float32"}))
    if training["clip_norm"] != 1.0:
        found.append(_remedy(run, _("Gradients clipped at a norm of 1"), {"training_clip_norm": 1.0}))
    return found


def _smaller(run: Run, known: Expected | None, words: str, values: Values) -> Remedy:
    """With what the estimate becomes. The values are fields of the spec's training."""
    remedy = _remedy(run, words, values)
    less = known.changed({name.removeprefix(TRAINING): value for name, value in values.items()}) if known else None
    return replace(remedy, peak_bytes=less.memory.peak, fits=less.fits) if less else remedy


def _remedy(run: Run, words: str, values: Values) -> Remedy:
    url = reverse("runs:new", args=[run.team.slug])
    return Remedy(words, f"{url}?clone={run.pk}&{to_query(values)}")
