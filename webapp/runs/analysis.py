"""An analysis for its page: what its `method` event tells of rank and bits, as curves, tables and ways into the form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import Http404

from jobs.analysis.defaults import EVENT
from jobs.methods.entry import Method
from jobs.methods.ranks import write_ranks
from jobs.methods.registry import LORA_OF_BITS, get_method
from webapp.runs.fields import setting_name
from webapp.runs.kinds import Kind
from webapp.runs.layers import Row, by_layer, last_told
from webapp.runs.models import Run

# A chart tells so many lines apart; further kinds of modules stand in the table alone.
LINES = 8


@dataclass(frozen=True)
class Width:
    """The base in so many bits: loss before training and its rise over that at 16 bits, how far weights moved, what a rank is advised, the
    share of the error that it can take away, and the name of the method. Shares from 0 to 1.
    """

    bits: int
    loss: float | None
    rise: float | None
    moved: float
    rank: int
    repaired: float | None
    method: str


def analysis(run: Run) -> dict[str, Any]:
    """The context of the analysis; None for a run that is none or has found nothing yet."""
    found = last_told(run, EVENT) if run.kind == Kind.ANALYSE else None
    if found is None:
        return {"analysis": None}
    spectrum = found["spectrum"]
    ranks = sorted(spectrum["rank_pattern"].values())
    shown = {
        **found,
        "columns": list(spectrum["modules"]),
        "layer_rows": _layer_rows(spectrum["layers"], list(spectrum["modules"]), spectrum["directions"]),
        "curves": _curves(spectrum),
        "pattern": {"least": ranks[0], "median": ranks[len(ranks) // 2], "most": ranks[-1]},
        "widths": _widths(found),
    }
    return {"analysis": shown}


def filled(run: Run, take: str) -> dict[str, str | int | float]:
    """The form's values by which a new run takes the suggested `rank`, the rank `pattern`, or `16`, `8` or `4` bits with the rank for them.

    Raises `Http404` where there is no such suggestion.
    """
    found = last_told(run, EVENT)
    if found is None:
        raise Http404
    if take in ("rank", "pattern"):
        values = _ranked(get_method(run.method if _has_rank(run.method) else "lora"), found["spectrum"]["suggested_rank"])
        if take == "rank":
            return values
        method = takes_pattern(run.method)
        lines = write_ranks(found["spectrum"]["rank_pattern"])
        return {**_ranked(get_method(method), found["spectrum"]["suggested_rank"]), f"settings_{method}_rank_pattern": lines}
    advised = {str(one["bits"]): one for one in (found["bits"] or {}).get("advice", ())}
    if take not in advised:
        raise Http404
    return _ranked(get_method(LORA_OF_BITS[advised[take]["bits"]]), advised[take]["rank"])


def takes_pattern(method: str) -> str:
    """The method itself where it takes ranks by layer, else LoRA."""
    return method if any(setting.name == "rank_pattern" for setting in get_method(method).settings) else "lora"


def _has_rank(method: str) -> bool:
    return any(setting.name == "rank" for setting in get_method(method).settings)


def _ranked(method: Method, rank: int) -> dict[str, str | int | float]:
    """The method with a rank, and with alpha in the proportion to it that the defaults have: the size of a step stays."""
    settings = {setting.name: setting for setting in method.settings}
    values: dict[str, str | int | float] = {"method": method.id, setting_name(method, settings["rank"]): rank}
    if "alpha" in settings:
        alpha, usual = settings["alpha"].default, settings["rank"].default
        values[setting_name(method, settings["alpha"])] = float(alpha) / float(usual) * rank
    return values


def _layer_rows(layers: Sequence[Mapping[str, Any]], columns: Sequence[str], directions: int) -> list[Row[str]]:
    """For each place in the stack and kind of module the directions that hold 90 % of the gradient's energy."""
    words = [_directions(layer, directions) for layer in layers]
    return by_layer([(layer["layer"], layer["module"]) for layer in layers], words, columns)[1]


def _directions(layer: Mapping[str, Any], directions: int) -> str:
    rank = layer["effective_rank_90"]
    return f"> {min(directions, layer['outputs'], layer['inputs'])}" if rank is None else str(rank)


def _curves(spectrum: Mapping[str, Any]) -> dict[str, Any]:
    """What the charts draw: `rank` by layer, one more than was looked at where it is beyond that; `held` by number of directions."""
    modules = list(spectrum["modules"])[:LINES]
    inside = [layer for layer in spectrum["layers"] if layer["layer"] is not None]
    places = sorted({layer["layer"] for layer in inside})
    by_place = {(layer["layer"], layer["module"]): layer["effective_rank_90"] for layer in inside}
    beyond = spectrum["directions"] + 1
    ranks = {module: [by_place[place, module] or beyond if (place, module) in by_place else None for place in places] for module in modules}
    held = {module: spectrum["modules"][module]["held"] for module in modules}
    most = max(len(shares) for shares in held.values())
    return {
        "rank": {"x": places, "columns": ranks},
        "held": {
            "x": list(range(1, most + 1)),
            "columns": {name: [*shares, *[None] * (most - len(shares))] for name, shares in held.items()},
        },
    }


def _widths(found: Mapping[str, Any]) -> list[Width]:
    bits = found["bits"]
    return (
        [
            Width(
                bits=width["bits"],
                loss=width["loss"],
                rise=advice["loss_rise"],
                moved=width["relative_error"],
                rank=advice["rank"],
                repaired=advice["error_repaired_at_most"],
                method=get_method(LORA_OF_BITS[width["bits"]]).name,
            )
            for width, advice in zip(bits["widths"], bits["advice"], strict=True)
        ]
        if bits
        else []
    )
