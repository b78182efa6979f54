"""Rows that are nearly the same, by MinHash over shingles of words: numpy alone, the same answer every time, bounded memory.

A row is the set of its runs of three words (letters and digits, case aside; in scripts without spaces each character is a word). Two rows
are near where the sets' Jaccard similarity (shared over all) is at least `NEAR`. 64 hashes estimate it (Broder 1997); rows that agree in
four hashes of one of 16 bands are compared (locality-sensitive hashing: a pair of similarity 0.8 is met with a probability of 0.9998, one
of 0.9 practically always), and what the estimate leaves standing is counted out. Within a band each row is compared with the first one
of its group and with the one before it, so that a thousand copies of one row are a thousand pairs and not half a million.
"""

from __future__ import annotations

import re
import zlib
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR = 0.8
SHINGLE_WORDS = 3
HASHES, BANDS = 64, 16
# Shingles that are held at once, over all rows: what bounds the memory (4 bytes each).
BUDGET = 24_000_000
MOST_WORDS, LEAST_WORDS = 2000, 100
# An estimate of 64 hashes errs by 0.05 (one standard deviation) at a similarity of 0.8.
_PLAUSIBLE = 0.65
_VOCABULARY = 1_000_000
_BATCH_SHINGLES = 500_000
# Han, kana: each character; else runs of letters and digits.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Shingles:
    """The shingles of rows end to end: those of row i are `hashes[offsets[i]:offsets[i + 1]]` (uint32), at least one where it has words."""

    hashes: NDArray[np.uint32]
    offsets: NDArray[np.int64]

    def of(self, row: int) -> NDArray[np.uint32]:
        """The row's set, sorted."""
        return np.unique(self.hashes[self.offsets[row] : self.offsets[row + 1]])


@dataclass(frozen=True)
class NearPairs:
    """Pairs of rows by number: `later` > `earlier`, int64 [pairs], with their `similarity`, float64 [pairs]; sorted by both numbers."""

    later: NDArray[np.int64]
    earlier: NDArray[np.int64]
    similarity: NDArray[np.float64]


def words_looked_at(rows: int) -> int:
    """How many words of each row are looked at, so that all rows keep to the budget."""
    return max(LEAST_WORDS, min(MOST_WORDS, BUDGET // max(rows, 1)))


def shingle(texts: Iterable[str], *, words: int, report: Callable[[int], None] = lambda _done: None) -> Shingles:
    """The shingles of texts by their first so many `words`. `report` gets the number of texts done."""
    known = _Vocabulary()
    hashes: list[NDArray[np.uint32]] = []
    counts = array("q")
    batch = array("I")
    sizes = array("q")
    for done, text in enumerate(texts, 1):
        found = _WORD.findall(text[: words * 12].casefold())[:words]
        if found:
            # Texts of one or two words are one shingle too.
            found += [""] * (SHINGLE_WORDS - len(found))
            batch.extend(map(known.__getitem__, found))
        sizes.append(len(found))
        if len(batch) >= _BATCH_SHINGLES:
            _close_batch(batch, sizes, hashes, counts)
            batch, sizes = array("I"), array("q")
        if done % 1024 == 0:
            report(done)
    _close_batch(batch, sizes, hashes, counts)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.frombuffer(counts, np.int64))])
    return Shingles(np.concatenate(hashes), offsets)


class _Vocabulary(dict[str, int]):
    """CRC-32 of words, remembered; forgotten altogether when there are too many of them."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _VOCABULARY:
            self.clear()
        self[word] = number = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return number


def _close_batch(batch: array[int], sizes: array[int], hashes: list[NDArray[np.uint32]], counts: array[int]) -> None:
    """Turns the words of some rows into shingles, none of which goes over the end of its row."""
    lengths = np.array(sizes, dtype=np.int64)
    words = np.array(batch, dtype=np.uint64)
    kept = np.maximum(lengths - (SHINGLE_WORDS - 1), 0)
    counts.extend(kept.tolist())
    if not len(words):
        hashes.append(np.empty(0, np.uint32))
        return
    factors = _odd_numbers(SHINGLE_WORDS, salt=1)
    last = len(words) - (SHINGLE_WORDS - 1)
    mixed = np.zeros(last, dtype=np.uint64)
    for place, factor in enumerate(factors):
        mixed += words[place : place + last] * factor
    mixed ^= mixed >> np.uint64(29)
    mixed *= factors[0]
    ends = np.cumsum(lengths[lengths > 0])
    within = np.ones(last, dtype=np.bool_)
    for back in range(1, SHINGLE_WORDS):
        within[(ends - back)[ends - back < last]] = False
    hashes.append((mixed[within] >> np.uint64(32)).astype(np.uint32))


def _odd_numbers(count: int, *, salt: int) -> NDArray[np.uint64]:
    """Fixed odd multipliers, by SplitMix64."""
    state = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(salt * 0x632BE59BD9B4E019 % 2**64)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (state ^ (state >> np.uint64(31))) | np.uint64(1)


def near_pairs(shingles: Shingles, groups: NDArray[Any], *, progress: Progress = lambda _done, _total: None) -> NearPairs:
    """Each row with the nearest earlier row of every group (`groups` [rows], a small whole number for each) that was found near to it."""
    rows = np.flatnonzero(np.diff(shingles.offsets))
    if len(rows) < 2:
        return NearPairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float64))
    signatures = _signatures(shingles, rows, progress)
    earlier, later = _candidates(signatures)
    estimates = _estimates(signatures, earlier, later)
    plausible = estimates >= _PLAUSIBLE
    earlier, later = rows[earlier[plausible]], rows[later[plausible]]
    earlier, later = _best(earlier, later, estimates[plausible], groups, most=3)
    similarity = np.array([_jaccard(shingles, one, other) for one, other in zip(earlier.tolist(), later.tolist(), strict=True)])
    near = similarity >= NEAR if len(similarity) else np.empty(0, np.bool_)
    earlier, later, similarity = earlier[near], later[near], similarity[near] if len(similarity) else np.empty(0)
    order = _best_order(earlier, later, similarity, groups)
    first = np.ones(len(order), dtype=np.bool_)
    if len(order) > 1:
        keys = np.stack([later[order], groups[earlier[order]].astype(np.int64)])
        first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    chosen = np.sort(order[first])
    chosen = chosen[np.lexsort((earlier[chosen], later[chosen]))]
    return NearPairs(later[chosen], earlier[chosen], similarity[chosen])


def _signatures(shingles: Shingles, rows: NDArray[np.int64], progress: Progress) -> NDArray[np.uint32]:
    """MinHash signatures, uint32 [rows, HASHES], some rows at a time."""
    factors, shifts = _odd_numbers(HASHES, salt=2), _odd_numbers(HASHES, salt=3)
    signatures = np.empty((len(rows), HASHES), dtype=np.uint32)
    starts, ends = shingles.offsets[rows], shingles.offsets[rows + 1]
    begin = 0
    while begin < len(rows):
        # Rows without words hold no shingles, so those of `rows` lie end to end.
        end = max(begin + 1, int(np.searchsorted(ends, starts[begin] + _BATCH_SHINGLES, side="right")))
        values = shingles.hashes[starts[begin] : ends[end - 1]].astype(np.uint64)
        places = starts[begin:end] - starts[begin]
        for number in range(HASHES):
            hashed = ((values * factors[number] + shifts[number]) >> np.uint64(32)).astype(np.uint32)
            signatures[begin:end, number] = np.minimum.reduceat(hashed, places)
        begin = end
        progress(begin, len(rows))
    return signatures


def _candidates(signatures: NDArray[np.uint32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(earlier, later) of rows that agree in a band, each pair once."""
    count, width = len(signatures), HASHES // BANDS
    factors = _odd_numbers(width, salt=4)
    found: list[NDArray[np.int64]] = []
    for band in range(BANDS):
        keys = (signatures[:, band * width : (band + 1) * width].astype(np.uint64) * factors).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        same = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
        starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        heads = starts[np.searchsorted(starts, same, side="right") - 1]
        # The sort is stable: within a group rows stand in their order.
        found += [np.unique(before * count + order[same]) for before in (order[heads], order[same - 1])]
    pairs = np.unique(np.concatenate(found))
    return pairs // count, pairs % count


def _estimates(signatures: NDArray[np.uint32], earlier: NDArray[np.int64], later: NDArray[np.int64]) -> NDArray[np.float64]:
    """The share of hashes in which two rows agree."""
    estimates = np.empty(len(earlier), dtype=np.float64)
    for start in range(0, len(earlier), 50_000):
        part = slice(start, start + 50_000)
        estimates[part] = (signatures[earlier[part]] == signatures[later[part]]).mean(axis=1)
    return estimates


def _best_order(
    earlier: NDArray[np.int64], later: NDArray[np.int64], scores: NDArray[np.float64], groups: NDArray[Any]
) -> NDArray[np.int64]:
    """Pairs by later row and group of the earlier one, the nearest first."""
    return np.lexsort((earlier, -scores, groups[earlier], later))


def _best(
    earlier: NDArray[np.int64], later: NDArray[np.int64], scores: NDArray[np.float64], groups: NDArray[Any], *, most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each later row and group the `most` likeliest pairs."""
    order = _best_order(earlier, later, scores, groups)
    keys = later[order] * (int(groups.max(initial=0)) + 1) + groups[earlier[order]]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, np.int64)
    places = np.arange(len(keys)) - starts[np.searchsorted(starts, np.arange(len(keys)), side="right") - 1] if len(keys) else starts
    kept = order[places < most]
    return earlier[kept], later[kept]


def _jaccard(shingles: Shingles, one: int, other: int) -> float:
    first, second = shingles.of(one), shingles.of(other)
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)
