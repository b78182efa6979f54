"""What the results of `make bench-training` come to: a table for each case, and the ratios to the peers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from benchmarks.trainers import TRAINERS, Result

GRAFT = "graft"
_SHOWN_STEPS = 8
_COMPILED = frozenset(trainer.name for trainer in TRAINERS if trainer.compiled)


def counted(results: Sequence[Result]) -> list[Result]:
    """The runs that count: those that came through, without round 0, which only fills caches."""
    return [result for result in results if result.outcome == "ok" and result.round > 0]


def speeds(results: Sequence[Result], case: str) -> dict[str, float]:
    """Real tokens/s by trainer: the median over the timed steps of all rounds."""
    return {name: median(step.tokens_per_second for run in runs for step in run.timed) for name, runs in _by_trainer(results, case).items()}


def peaks(results: Sequence[Result], case: str) -> dict[str, int]:
    """Peak resident bytes by trainer: the largest of all rounds."""
    return {name: max(run.peak_rss_bytes for run in runs) for name, runs in _by_trainer(results, case).items()}


def _by_trainer(results: Sequence[Result], case: str) -> dict[str, list[Result]]:
    found: dict[str, list[Result]] = {}
    for result in counted(results):
        if result.case == case:
            found.setdefault(result.trainer, []).append(result)
    return found


def table(results: Sequence[Result], case: str) -> str:
    """The trainers of a case by speed, in Markdown: each round's median, peak memory, and the loss of each step of the first round."""
    rates, memory, runs = speeds(results, case), peaks(results, case), _by_trainer(results, case)
    lines = [
        f"### {case}",
        "",
        "| trainer | tokens/s | by round | s/step | peak RSS MB | warm-up s | loss by step |",
        "|---|---:|---|---:|---:|---:|---|",
    ]
    for name in sorted(rates, key=lambda name: -rates[name]):
        first = runs[name][0]
        cells = (
            name if all(run.settled for run in runs[name]) else f"{name} (had not settled)",
            f"{rates[name]:.0f}",
            " ".join(f"{median(step.tokens_per_second for step in run.timed):.0f}" for run in runs[name]),
            f"{median(step.seconds for run in runs[name] for step in run.timed):.2f}",
            f"{memory[name] / 1e6:.0f}",
            f"{first.warm_up_seconds:.0f}",
            " ".join(f"{step.loss:.4f}" for step in first.steps[:_SHOWN_STEPS]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        f"\n{one.trainer}, round {one.round}: {one.outcome}: {one.reason}" for one in results if one.case == case and one.outcome != "ok"
    ]
    return "\n".join(lines)


def ratios(results: Sequence[Result], case: str) -> dict[str, Any] | None:
    """Graft against the fastest and the smallest peer of a case, eager ones and all; None where Graft or every peer is missing."""
    rates, memory = speeds(results, case), peaks(results, case)
    eager = [name for name in rates if name != GRAFT and name not in _COMPILED]
    everybody = [name for name in rates if name != GRAFT]
    if GRAFT not in rates or not everybody:
        return None
    found: dict[str, Any] = {"tokens_per_second": round(rates[GRAFT], 1), "peak_rss_bytes": memory[GRAFT]}
    for suffix, names in (("", eager), ("_compiled_too", everybody)):
        if names:
            best, smallest = max(names, key=rates.__getitem__), min(names, key=memory.__getitem__)
            found[f"best_peer{suffix}"] = best
            found[f"ratio_to_best_peer{suffix}"] = round(rates[GRAFT] / rates[best], 3)
            found[f"smallest_peer{suffix}"] = smallest
            found[f"rss_ratio_to_smallest_peer{suffix}"] = round(memory[GRAFT] / memory[smallest], 3)
    return found


def summary(results: Sequence[Result]) -> dict[str, Any]:
    """The figures of the whole: by case, LoRA bf16 by load on top, and QLoRA's speed as a share of LoRA's."""
    cases = list(dict.fromkeys(result.case for result in counted(results)))
    by_case = {case: found for case in cases if (found := ratios(results, case))}
    whole: dict[str, Any] = {}
    for name in ("ratio_to_best_peer", "rss_ratio_to_smallest_peer"):
        for key in (name, f"{name}_compiled_too"):
            whole[key] = {
                case.removeprefix("lora-bf16-"): found[key]
                for case, found in by_case.items()
                if case.startswith("lora-bf16-") and key in found
            }
    graft = {case: rates[GRAFT] for case in cases if GRAFT in (rates := speeds(results, case))}
    whole["qlora_to_lora"] = {
        load: round(graft[f"qlora-bf16-{load}"] / graft[f"lora-bf16-{load}"], 3)
        for load in (case.removeprefix("qlora-bf16-") for case in graft if case.startswith("qlora-bf16-"))
        if f"lora-bf16-{load}" in graft
    }
    return whole | {"cases": by_case}
