"""Folding the events of a run to its summary: what lists and headers show without reading the archive.

The summary is a plain JSON object:

- `phase`: the data of the last `phase` event; `plan`: of the last `plan`; `latest`: of the last `step`
- `evals`: `validation` (the newest of the tuned model while training), `best` (`step`, `loss`: the least validation loss), `test`: the
  newest evaluation of each model (`base`, `tuned`, `merged`, `dequantised`, `stored`) on the held-out rows: the test file's, else the
  validation rows; `probe`: the newest of `base` and `tuned` on the general probe
- `peak_memory_bytes`: the most that a step reported (CUDA: reserved by the allocator; CPU: resident)
- `spark`: at most `BUCKETS` mean losses of buckets of equal width in steps; `buckets` is what is needed to go on with it
- `warnings`: the data of `warning` events, each once; `points`: how many `step` events there were, in all attempts
"""

from __future__ import annotations

from typing import Any

from jobs.events import Event

Summary = dict[str, Any]

BUCKETS = 40
WARNINGS = 20
MEMORY_KEYS = ("reserved_bytes", "resident_bytes")


def fold(summary: Summary, event: Event) -> Summary:
    """The summary with one more event. Pure: the given summary is left as it is."""
    data = event.data
    match event.kind:
        case "phase":
            return {**summary, "phase": data}
        case "plan":
            return _rewind({**summary, "plan": data}, int(data.get("start_step") or 0))
        case "step":
            return _step(summary, data)
        case "eval":
            return {**summary, "evals": _evals(summary, data)}
        case "warning":
            known = summary.get("warnings", [])
            return summary if data in known else {**summary, "warnings": [*known, data][-WARNINGS:]}
    return summary


def _step(summary: Summary, data: dict[str, Any]) -> Summary:
    memory = data.get("memory") or {}
    used = next((memory[key] for key in MEMORY_KEYS if memory.get(key) is not None), 0)
    folded = {
        **summary,
        "latest": data,
        "points": summary.get("points", 0) + 1,
        "peak_memory_bytes": max(summary.get("peak_memory_bytes", 0), used),
    }
    return folded if data.get("loss") is None else _spark(folded, int(data["step"]), float(data["loss"]))


def _spark(summary: Summary, step: int, loss: float) -> Summary:
    """Adds a loss to its bucket (`[index, sum, count]`). Where there are too many buckets, neighbours are merged and the width doubles:
    so the buckets stay equal without knowing how long the run will be.
    """
    state = summary.get("buckets") or {"width": 1, "rows": []}
    width, rows = state["width"], [list(row) for row in state["rows"]]
    index = (step - 1) // width
    if rows and rows[-1][0] >= index:
        rows[-1] = [rows[-1][0], rows[-1][1] + loss, rows[-1][2] + 1]
    else:
        rows.append([index, loss, 1])
    while rows[-1][0] >= BUCKETS:
        width, rows = width * 2, _merge(rows)
    return _with_buckets(summary, width, rows)


def _merge(rows: list[list[Any]]) -> list[list[Any]]:
    merged: list[list[Any]] = []
    for index, total, count in rows:
        if merged and merged[-1][0] == index // 2:
            merged[-1] = [index // 2, merged[-1][1] + total, merged[-1][2] + count]
        else:
            merged.append([index // 2, total, count])
    return merged


def _rewind(summary: Summary, start_step: int) -> Summary:
    """A new attempt starts after `start_step`: the buckets that reach beyond it will be filled again."""
    if "buckets" not in summary:
        return summary
    width, rows = summary["buckets"]["width"], summary["buckets"]["rows"]
    return _with_buckets(summary, width, [row for row in rows if (row[0] + 1) * width <= start_step])


def _with_buckets(summary: Summary, width: int, rows: list[list[Any]]) -> Summary:
    spark = [round(total / count, 5) for _index, total, count in rows]
    return {**summary, "buckets": {"width": width, "rows": rows}, "spark": spark}


def _evals(summary: Summary, data: dict[str, Any]) -> dict[str, Any]:
    evals = dict(summary.get("evals", {}))
    held_out = "test" if summary.get("plan", {}).get("test_rows") else "validation"
    if data["split"] == "validation" and data["model"] == "tuned":
        evals["validation"] = data
        best, loss = evals.get("best"), data.get("loss")
        if loss is not None and (best is None or loss < best["loss"]):
            evals["best"] = {"step": data.get("step"), "loss": loss}
    if data["split"] == held_out:
        evals["test"] = {**evals.get("test", {}), data["model"]: data}
    if data["split"] == "probe":
        evals["probe"] = {**evals.get("probe", {}), data["model"]: data}
    return evals
