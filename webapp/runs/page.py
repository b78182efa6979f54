"""What the page of one run shows besides its charts, read from the run and its archive: header, evaluation, samples, log, artifacts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.timezone import now
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from jobs.composition.rules import obstacle
from jobs.methods.registry import METHODS, get_method
from webapp.core import formats
from webapp.runs import composition, memory
from webapp.runs.analysis import analysis
from webapp.runs.blocks import heat_map
from webapp.runs.figures import MEASURES, SHARES, Column, by_chance, columns_of, headline
from webapp.runs.forgetting import forgetting
from webapp.runs.kinds import Kind
from webapp.runs.listing import seconds_of
from webapp.runs.models import Artifact, Run
from webapp.runs.remedies import data_link, remedies, shortage
from webapp.runs.run_log import PHASES, last_words, log
from webapp.runs.services.compositions import finished
from webapp.runs.services.expected import expected
from webapp.runs.services.status import actions, position
from webapp.runs.services.status import progress as progress_of
from webapp.runs.settings_shown import configuration
from webapp.runs.states import Desired, State

EXPORTED = {
    "merged": gettext_lazy("Merged into the 16-bit weights"),
    "dequantised": gettext_lazy("Merged into the dequantised weights"),
    "stored": gettext_lazy("Full model as stored, rounded to 16 bits"),
}
MODELS = {"base": gettext_lazy("Base model"), "tuned": gettext_lazy("Tuned (what was trained)"), **EXPORTED}
WISHES = {
    "pause": gettext_lazy("pausing: a checkpoint is being written"),
    "cancel": gettext_lazy("cancelling"),
    "finish": gettext_lazy("finishing: the last step, then results and export"),
    "extend": gettext_lazy("stopping at a checkpoint, to go on for more epochs"),
}
PAUSING_ANEW = gettext_lazy("pausing: it will begin anew")
FACTS = {
    "merge_into": gettext_lazy("Merged into"),
    "stored_dtype": gettext_lazy("Weights stored in"),
    "merge_max_difference": gettext_lazy("Largest difference of a logit, exported against trained"),
    "mean_kl": gettext_lazy("Mean KL divergence, exported against trained"),
    "top1_agreement": gettext_lazy("Same likeliest token"),
    "compared_rows": gettext_lazy("Rows compared"),
    "compared_positions": gettext_lazy("Positions compared"),
    "dtype": gettext_lazy("Compared in"),
    **MEASURES,
}
SMOOTHING = 0.9
AXES = {"step": gettext_lazy("step"), "epoch": gettext_lazy("epoch"), "tokens": gettext_lazy("tokens"), "seconds": gettext_lazy("time")}
BASES = {"original": gettext_lazy("the original 16-bit weights"), "dequantised": gettext_lazy("the dequantised 4-bit weights")}


@dataclass(frozen=True)
class Progress:
    """The bar of the header: its words, its share (None: unknown, the bar moves by itself) and the time that is left."""

    words: str
    value: float | None
    eta_seconds: float | None
    shown: bool


@dataclass(frozen=True)
class Measured:
    """One model's results on the held-out rows: the `eval` event's data, and its values as words in the order of the columns."""

    label: str
    values: list[str]
    data: dict[str, Any]


def header(run: Run) -> dict[str, Any]:
    """State, progress and figures of a run: what its summary and its plan say."""
    summary = run.summary
    plan, evals = summary.get("plan") or {}, summary.get("evals") or {}
    test, total = evals.get("test") or {}, plan.get("total_parameters")
    return {
        "can": actions(run),
        "wish": _wish(run),
        "smaller": memory.told(run),
        "plan": plan,
        "latest": summary.get("latest") or {},
        "validation": evals.get("validation") or {},
        "progress": progress(run),
        "memory": _memory((summary.get("latest") or {}).get("memory") or {}, plan.get("device") or {}),
        "method": get_method(run.method) if run.method in METHODS else None,
        "trainable_share": plan["trainable_parameters"] / total if total and plan.get("trainable_parameters") else None,
        "losses": ((test.get("base") or {}).get("loss"), (test.get("tuned") or {}).get("loss")),
        "figure": headline(summary),
        "chance": by_chance(summary),
        "seconds": seconds_of(run, now()),
        "gpu": (plan.get("device") or {}).get("kind") == "cuda",
        "where": (where := _place(run)),
        "last_words": last_words(run) if run.state == State.FAILED else None,
        "remedies": remedies(run),
        "shortage": shortage(run),
        "data_link": data_link(run, where),
        "point_at": _point_at(run),
        "combines": run.kind != Kind.ANALYSE and run.state == State.SUCCEEDED and run.method in METHODS and not obstacle(finished(run)),
    }


def _wish(run: Run) -> Any:
    """What is asked of a worker, in words."""
    if not run.is_active:
        return ""
    return PAUSING_ANEW if run.desired == Desired.PAUSE and not run.is_resumable else WISHES.get(run.desired, "")


def progress(run: Run) -> Progress:
    """How far the run is: steps while it trains, else the progress of its phase."""
    thin = formats.format_number
    steps = _("step %(step)s / %(total)s") % {"step": thin(run.last_step), "total": thin(run.total_steps)} if run.total_steps else ""
    share = progress_of(run)
    phase = run.summary.get("phase") or {}
    if not run.is_active:
        place = _("place %(place)s in the queue") % {"place": position(run)} if run.state == State.QUEUED else ""
        return Progress(", ".join(filter(None, (steps, place))), share, None, shown=bool(steps))
    if phase.get("name") in (None, "training"):
        return Progress(
            steps or str(PHASES["loading"]), share if steps else None, (run.summary.get("latest") or {}).get("eta_seconds"), True
        )
    words = str(PHASES.get(phase["name"], phase["name"]))
    if not phase.get("total"):
        return Progress(words, None, None, shown=True)
    done, of = phase.get("done") or 0, phase["total"]
    figure = formats.format_bytes if phase.get("unit") == "bytes" else thin
    unit = "" if phase.get("unit") == "bytes" else f" {phase.get('unit') or ''}"
    return Progress(f"{words}: {figure(done)} / {figure(of)}{unit}", done / of, None, shown=True)


def _memory(memory: dict[str, Any], device: dict[str, Any]) -> dict[str, Any]:
    """`used` and `total` bytes: the device's on CUDA; without a GPU the resident set and what the host has."""
    if "resident_bytes" in memory:
        return {"used": memory["resident_bytes"], "total": device.get("memory_bytes")}
    used = memory.get("device_used_bytes")
    return {"used": used if used is not None else memory.get("reserved_bytes"), "total": memory.get("device_total_bytes")}


def _place(run: Run) -> dict[str, Any]:
    """Where it failed, in the user's own terms (file, line, column, field), as the last `finished` event says."""
    if run.state != State.FAILED:
        return {}
    last = run.records.filter(kind="finished").order_by("-attempt", "-seq").values_list("data", flat=True).first()
    return (last or {}).get("where") or {}


def _point_at(run: Run) -> float | None:
    """When the newest step was told, in seconds since the epoch, while the run is under way."""
    if not run.is_active:
        return None
    return run.records.filter(kind="step").order_by("-attempt", "-seq").values_list("at", flat=True).first()


def evaluation(run: Run) -> dict[str, Any]:
    """The final results by model (base first), on the test rows, else on the validation rows; only measures that some model has."""
    by_split: dict[str, dict[str, dict[str, Any]]] = {}
    for data in _data(run, "eval"):
        by_split.setdefault(data.get("split", ""), {})[data.get("model", "")] = data
    # Validation during the training measures the tuned model alone; a comparison has the base beside it.
    split = next((name for name in ("test", "validation") if "base" in by_split.get(name, {})), "")
    found = by_split.get(split, {})
    columns = columns_of(found.values())
    results = [
        Measured(str(label), [column.words(column.value(found[model])) for column in columns], found[model])
        for model, label in models_of(run).items()
        if model in found
    ]
    forgotten, chance = forgetting(by_split.get("probe", {})), by_chance(run.summary)
    return {"results": results, "columns": columns, "split": split, "forgotten": forgotten, "chance": chance}


def models_of(run: Run) -> dict[str, Any]:
    """The models that a run measures, in the order shown, with what they are called."""
    return {**composition.labels(run), **EXPORTED} if run.kind == Kind.COMPOSE else MODELS


def samples(run: Run) -> dict[str, Any]:
    """The same prompts answered over time: by the base, by what is trained at each step that it was asked at, by what came of it.

    Of several answers of a model at one step the last counts; those of steps that a later attempt has taken back do not.
    """
    per_epoch = (run.summary.get("plan") or {}).get("steps_per_epoch")
    # A run that ended early has its results at the step that it came to.
    ends_at = run.last_step if run.state == State.SUCCEEDED else run.total_steps
    prompts: dict[int, dict[str, Any]] = {}
    for data in _standing_samples(run):
        entry = prompts.setdefault(int(data["index"]), {"prompt": data.get("prompt"), "expected": data.get("expected"), "by_model": {}})
        # The base is the same at every step; a later attempt asks it again.
        place = (data["model"], None if data["model"] == "base" else data.get("step"))
        entry["by_model"][place] = data
    ordered = [prompts[index] for index in sorted(prompts)]
    for entry in ordered:
        entry["answers"] = [
            {
                **entry["by_model"][model, step],
                "label": label,
                "at": step,
                "epoch": step / per_epoch if step and per_epoch else None,
                "between": model == "tuned" and run.kind == Kind.TRAIN and step is not None and step < ends_at,
            }
            for model, label in models_of(run).items()
            for step in sorted((step for name, step in entry["by_model"] if name == model), key=lambda step: step or 0)
        ]
    return {"samples": ordered}


def _standing_samples(run: Run) -> Iterator[dict[str, Any]]:
    """The data of the `sample` events that no later attempt has undone, in order."""
    plans = run.records.filter(kind="plan").values_list("attempt", "data")
    starts = [(attempt, int(data.get("start_step") or 0)) for attempt, data in plans]
    for attempt, data in run.records.filter(kind="sample").order_by("attempt", "seq").values_list("attempt", "data"):
        if all(attempt >= later or (data.get("step") or 0) <= start for later, start in starts):
            yield data


def artifacts(run: Run) -> dict[str, Any]:
    """What the run left for download, with the facts of each; success publishes one attempt's set."""
    return {"artifacts": [{"row": artifact, "facts": facts_of(artifact)} for artifact in run.artifacts.all()]}


def facts_of(artifact: Artifact) -> list[tuple[str, str]]:
    """The `details` of the `artifact` event that a page can name, as name and value."""
    details = {name: value for name, value in artifact.details.items() if value is not None}
    return [(str(label), _fact(name, details[name])) for name, label in FACTS.items() if name in details]


def _fact(name: str, value: Any) -> str:
    if name == "merge_into":
        return str(BASES.get(value, value))
    if name in MEASURES:
        return Column(name, False, MEASURES[name], "", name in SHARES).words(value)
    if name == "top1_agreement":
        return formats.format_percent(value, 2)
    return formats.format_rate(value) if name in ("merge_max_difference", "mean_kl") else str(value)


def history(run: Run) -> dict[str, Any]:
    """Every change of state, with who made it."""
    return {"history": list(run.history.all())}


def words() -> dict[str, Any]:
    """What the page's scripts say, in the reader's language."""
    return {
        "step": _("step"), "epoch": _("epoch"), "tokens": _("tokens"), "seconds": _("time"),
        "raw": _("raw"), "smoothed": _("smoothed"), "validation": _("validation"), "rate": _("learning rate"),
        "limit": _("limit"), "estimate": _("estimate"), "clip": _("clipped at"),
        "utilisation": _("utilisation"), "celsius": _("temperature"),
        "resident_bytes": _("resident"), "allocated_bytes": _("allocated"), "reserved_bytes": _("reserved"),
        "device_used_bytes": _("device"),
        "progress": _("step {done} / {total}"), "eta": _("ETA {time}"),
        "contact_waiting": _("connecting"), "contact_live": _("live"), "contact_lost": _("lost contact"), "contact_ended": _("ended"),
        "contact_silent": _("lost contact with the worker"),
        "age": _("last point {time} ago"), "elapsed": _("{time} so far"),
        "phases": {name: str(text) for name, text in PHASES.items()},
    }  # fmt: skip


def toolbar(run: Run, asked: Mapping[str, str]) -> dict[str, Any]:
    """How the charts are drawn, as the page's address says (`x`, `smoothing`, `log`: names of charts), and their constant lines."""
    try:
        smoothing = min(max(float(asked.get("smoothing", SMOOTHING)), 0.0), 0.99)
    except ValueError:
        smoothing = SMOOTHING
    x = asked.get("x", "step")
    device = (run.summary.get("plan") or {}).get("device") or {}
    logged = asked.get("log-scale", "gradient_norm").split(",")
    return {
        "smoothing": f"{smoothing if smoothing == smoothing else SMOOTHING:.2f}",  # noqa: PLR0124 - NaN
        "x": x if x in AXES else "step",
        "axes": AXES,
        "log": logged,
        "limit_bytes": device.get("memory_bytes") or 0,
        "estimate_bytes": known.training_bytes if (known := expected(run)) else 0,
        "clip_norm": (run.spec.get("training") or {}).get("clip_norm") or 0,
        "cuda": device.get("kind") == "cuda",
    }


PARTS = {
    "header": header, "composition": composition.shown, "analysis": analysis, "blocks": heat_map, "evaluation": evaluation,
    "samples": samples, "log": log, "artifacts": artifacts, "history": history,
}  # fmt: skip


def part(run: Run, name: str, asked: Mapping[str, str]) -> dict[str, Any]:
    """The context of one part of the page; `asked` is the query. Raises `KeyError` for a part that is not there."""
    return {"run": run, **(log(run, asked.get("log", "")) if name == "log" else PARTS[name](run))}


def whole(run: Run, asked: Mapping[str, str]) -> dict[str, Any]:
    """The context of the whole page; `asked` is the query."""
    # The cursor first: the socket then brings whatever is archived while the rest is read.
    newest = run.records.order_by("-attempt", "-seq").values_list("attempt", "seq").first() or (0, 0)
    context: dict[str, Any] = {"run": run, "cursor": "{}-{}".format(*newest), "words": words(), **configuration(run)}
    context["toolbar"] = toolbar(run, asked)
    for name in PARTS:
        context.update(part(run, name, asked))
    return context


def _data(run: Run, kind: str) -> list[dict[str, Any]]:
    """The data of every record of a kind, in the order of the attempts."""
    return list(run.records.filter(kind=kind).order_by("attempt", "seq").values_list("data", flat=True))
