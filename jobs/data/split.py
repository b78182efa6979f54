"""Which rows are set aside, by seed, and which are looked at where not all are: pure functions, the same in every part of Graft."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def split_indices(count: int, share: float, seed: int, *, salt: str = "validation") -> tuple[list[int], list[int]]:
    """Indices 0..count-1 as (kept, held out), both ascending.

    Each index gets a hash of (seed, salt, index) by SplitMix64 (Steele, Lea, Flood 2014); the `round(count * share)` smallest are
    held out: at least one where `share` > 0 and `count` >= 2, and never all. A row's hash does not depend on `count`.
    """
    import numpy as np

    chosen = held_out(count, share, seed, salt=salt)
    return np.flatnonzero(~chosen).tolist(), np.flatnonzero(chosen).tolist()


def held_out(count: int, share: float, seed: int, *, salt: str) -> Any:
    """The same as `bool [count]`, for files too long for lists: True where the row is held out."""
    import numpy as np

    chosen = np.zeros(count, dtype=np.bool_)
    if share > 0 and count >= 2:
        held = min(count - 1, max(1, round(count * share)))
        # A stable sort settles a tie by the index.
        chosen[np.argsort(_hashes(count, seed, salt), kind="stable")[:held]] = True
    return chosen


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """At most `count` of the items, evenly spread, in order: a file sorted by class still gives all of them."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _hashes(count: int, seed: int, salt: str) -> Any:
    import numpy as np

    key = int.from_bytes(hashlib.blake2b(f"{seed}:{salt}".encode(), digest_size=8).digest(), "little")
    with np.errstate(over="ignore"):
        state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(key)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(_MIX_1)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(_MIX_2)
        return state ^ (state >> np.uint64(31))
