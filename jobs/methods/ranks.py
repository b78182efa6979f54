"""Ranks of single layers as a setting (torch-free): lines of `name: rank`, or the JSON object that `python -m jobs analyse` gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

LARGEST = 1024
EXAMPLE = "model.layers.0.self_attn.q_proj: 8"

_LINE = re.compile(r"(?P<name>\w+(?:\.\w+)*)\s*:\s*(?P<rank>\d{1,9})")


def read_ranks(given: str | Mapping[str, Any]) -> dict[str, int]:
    """Rank by the name of a layer, or the end of such names, of text or of an object. Raises `ValueError` whose words name the line at
    fault.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(_lines(given if isinstance(given, str) else write_ranks(given)), start=1):
        if not line.strip():
            continue
        match = _LINE.fullmatch(line.strip())
        if not match:
            raise ValueError(f"has {line.strip()[:80]!r} in line {number}, which is not the name of a layer, a colon and a rank: {EXAMPLE}")
        name, rank = match["name"], int(match["rank"])
        if not 1 <= rank <= LARGEST:
            raise ValueError(f"has the rank {rank} in line {number}, which is not from 1 to {LARGEST}")
        if name in found:
            raise ValueError(f"names {name} in line {number} for the second time")
        found[name] = rank
    return found


def _lines(text: str) -> Iterable[str]:
    """The lines; of a JSON object one for each of its entries. Raises `ValueError`."""
    if not text.lstrip().startswith("{"):
        return text.splitlines()
    try:
        # As a list of pairs, so that a name that stands there twice is seen.
        pairs: list[tuple[str, Any]] = json.loads(text, object_pairs_hook=list)
    except ValueError as failure:
        raise ValueError(f"begins with a brace but is not JSON: {failure}") from None
    return [f"{name}: {rank}" for name, rank in pairs]


def write_ranks(ranks: Mapping[str, int]) -> str:
    """The lines that `read_ranks` reads."""
    return "\n".join(f"{name}: {rank}" for name, rank in ranks.items())


def ranks_of(ranks: Mapping[str, int], layers: Iterable[str]) -> dict[str, int]:
    """The rank of each of the `layers` that `ranks` speaks of, by its full name: a name fits a layer that it is or whose name it ends, and
    where several fit, the longest counts. Raises `ValueError` whose words name one that fits no layer.
    """
    found, unused = {}, dict(ranks)
    for layer in layers:
        fitting = [name for name in ranks if layer == name or layer.endswith(f".{name}")]
        for name in fitting:
            unused.pop(name, None)
        if fitting:
            found[layer] = ranks[max(fitting, key=len)]
    if unused:
        raise ValueError(f"names {next(iter(unused))}, which no layer with an adapter is called or ends with")
    return found
