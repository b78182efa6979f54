"""One analysis, whole: spectra, suggested ranks, and what fewer bits cost, as one JSON object (docs/advice.md)."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import torch

from jobs.analysis.bits import Width, measure_bits
from jobs.analysis.defaults import BATCHES, BITS, DIRECTIONS
from jobs.analysis.ranks import LayerSpectrum, by_module, spread_ranks, suggest_rank
from jobs.analysis.spectrum import gradient_spectra, mini_batches
from jobs.analysis.subject import Subject
from jobs.data.token_cache import TokenCache
from jobs.models.device import probe
from jobs.spec import RunSpec

VERSION = 1
# The QLoRA paper trains over 4 bits with rank 64 (Dettmers et al. 2023, arXiv:2305.14314), four times what is usual over 16; the same paper
# finds that on all layers the rank matters little. So this is where to begin and no law: `benchmarks.rank_study` compares.
MORE_RANK_AT_4_BITS = 4
MOST_RANK = 128
# Below this rise of the loss before training, 4 bits lose nothing that is worth a higher rank.
HARMLESS_RISE = 0.01

# Of the name of a phase, what is done of it, the total or None, and the unit: as in a `phase` event (`jobs.events`).
Tell = Callable[[str, int, int | None, str], None]


def analyse(
    spec: RunSpec,
    cache: TokenCache,
    *,
    batches: int = BATCHES,
    directions: int = DIRECTIONS,
    bits: Sequence[int] = BITS,
    tell: Tell = lambda _phase, _done, _total, _unit: None,
) -> dict[str, Any]:
    """What the base and the rows of `spec` say; `bits` none leaves widths uncompared. Raises `UserError`, and what `tell` does."""
    started, device = time.monotonic(), probe()
    torch.set_num_threads(device["threads"])
    tell("tokenizing", 0, None, "rows")
    subject = Subject.open(spec, cache, lambda done: tell("tokenizing", done, None, "rows"))
    tell("loading", 0, None, "tensors")
    spectrum = _spectrum(subject, batches, directions, lambda done, total: tell("analysing", done, total, "batches"))
    body: dict[str, Any] = {
        "version": VERSION,
        "model": spec.model.name or spec.model.path,
        "task": spec.task,
        "method": asdict(spec.method),
        "bits_of_base": subject.bits,
        "precision": subject.precision,
        "device": {key: device[key] for key in ("kind", "name", "threads")},
        "spectrum": spectrum,
        "bits": None,
    }
    if bits:
        tell("comparing", 0, len(bits), "widths")
        widths = measure_bits(subject, tuple(bits), lambda done, total: tell("comparing", done, total, "widths"))
        body["bits"] = {"widths": [width.to_json() for width in widths], "advice": advise_bits(widths, spectrum["suggested_rank"])}
    return body | {"seconds": time.monotonic() - started, "peak_bytes": _peak(device["kind"])}


def _spectrum(subject: Subject, batches: int, directions: int, progress: Callable[[int, int], None]) -> dict[str, Any]:
    """The spectra over some mini-batches, and the ranks that they suggest."""
    loaded = subject.load(subject.bits)
    spec, started = subject.spec, time.monotonic()
    chosen = mini_batches(loaded.encoded.train.rows, spec.training.micro_batch, batches, spec.seed)
    layers = gradient_spectra(loaded.runner, chosen, directions=directions, seed=spec.seed, progress=progress)
    return {
        "seconds": time.monotonic() - started,
        "batches": len(chosen),
        "rows": sum(len(rows) for rows in chosen),
        "labels": sum(row.labels for rows in chosen for row in rows),
        "directions": directions,
        **suggestions(layers),
        "modules": by_module(layers),
        "layers": [layer.to_json() for layer in layers],
    }


def suggestions(layers: Sequence[LayerSpectrum]) -> dict[str, Any]:
    """One rank for all, and ranks by layer that cost as much together."""
    suggested = suggest_rank(layers)
    pattern = spread_ranks(layers, suggested.rank)
    cost = sum(layer.cost for layer in layers)
    return {
        "suggested_rank": suggested.rank,
        "suggested_rank_is_at_least": suggested.at_least,
        "rank_pattern": pattern,
        "parameters": {"uniform": suggested.rank * cost, "pattern": sum(pattern[layer.name] * layer.cost for layer in layers)},
    }


def advise_bits(widths: Sequence[Width], rank: int) -> list[dict[str, Any]]:
    """For each width the rank to begin with, from `rank` for 16 bits: the same, but at 4 bits four times it where the loss rises.

    `loss_rise` is the loss before training over that of 16 bits, less one; None where 16 bits or held-out rows are missing.
    """
    whole = next((width.loss for width in widths if width.bits == 16), None)
    found = []
    for width in widths:
        rise = width.loss / whole - 1 if width.loss is not None and whole else None
        more = width.bits == 4 and (rise is None or rise > HARMLESS_RISE)
        advised = max(rank, min(MOST_RANK, MORE_RANK_AT_4_BITS * rank)) if more else rank
        repaired = width.repaired.get(advised)
        found.append({"bits": width.bits, "loss_rise": rise, "rank": advised, "error_repaired_at_most": repaired})
    return found


def brief(found: dict[str, Any]) -> dict[str, Any]:
    """An analysis without its singular values, floats cut to four digits, each layer with what fewer bits do to it: small enough for an
    event, and all that a page shows.
    """
    widths = (found["bits"] or {}).get("widths", ())
    errors = {width["bits"]: {layer["name"]: layer["relative_error"] for layer in width["layers"]} for width in widths}
    layers = [
        {key: value for key, value in layer.items() if key != "singular_values"}
        | {"relative_error": {str(bits): by_name[layer["name"]] for bits, by_name in errors.items() if layer["name"] in by_name}}
        for layer in found["spectrum"]["layers"]
    ]
    bits = found["bits"] and {**found["bits"], "widths": [{key: width[key] for key in width if key != "layers"} for width in widths]}
    short: dict[str, Any] = _short({**found, "spectrum": {**found["spectrum"], "layers": layers}, "bits": bits})
    return short


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {str(key): _short(item) for key, item in value.items()}
    return [_short(item) for item in value] if isinstance(value, list | tuple) else value


def _peak(kind: str) -> int:
    """The most memory so far, in bytes: torch's own on a GPU, else resident."""
    if kind == "cuda":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
