"""What is odd about the rows of a dataset version as a whole, found in a second pass over the files that a validation wrote.

Copies and near copies within and across the splits, labels of each split, turns, languages. The pairs go to a file, one JSON object a line,
since they may be many; what is counted is the answer. Where not all rows could be looked at, the answer says how many.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.data import task_rows
from jobs.data.check_files import kept_lines
from jobs.data.languages import LOOKED_AT as LANGUAGE_ROWS
from jobs.data.languages import languages
from jobs.data.near import NEAR, near_pairs, shingle, words_looked_at
from jobs.data.rows import Record
from jobs.data.split import spread
from jobs.data.statistics import label_counts

SPLITS = ("train", "validation", "test")
PAIRS = "pairs.jsonl"
# Rows that are compared for nearness; the first ones of each split beyond it would leave the others out, so they are evenly spread.
MOST_ROWS = 200_000
LISTED_PAIRS = 5000
SHOWN_CHARACTERS = 160
SHOWN_TURNS = 20

Progress = Callable[[str, int, int], None]


@dataclass
class _Rows:
    """All rows of all splits in one order: their split (number in `SPLITS`), place within it, and a hash of their line."""

    splits: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    hashes: list[int] = field(default_factory=list)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    turns: Counter[int] = field(default_factory=Counter)


def examine(
    folder: Path,
    counts: Mapping[str, int],
    out: Path,
    *,
    lines: Path | None = None,
    progress: Progress = lambda _phase, _done, _total: None,
) -> dict[str, Any]:
    """Examines `<split>.jsonl` of `folder`, which holds `counts` rows of each split, and writes `pairs.jsonl` into `out`.

    `lines` is the folder where a validation kept the rows' places in the file that came. `progress` gets a phase (of `jobs.events.PHASES`),
    rows done and rows in all. Returns `rows`, `copies`, `near`, `labels`, `turns` and `languages` (docs/data-check.md tells of each).
    """
    total = sum(counts.values())
    rows = _read(folder, counts, lambda done: progress("loading", done, total))
    splits, hashes = np.array(rows.splits, dtype=np.int8), np.array(rows.hashes, dtype=np.uint64)
    first = _first_places(hashes)
    compared = np.flatnonzero(first == np.arange(len(first)))
    whole = len(compared)
    compared = np.array(spread(compared.tolist(), MOST_ROWS), dtype=np.int64)
    words = words_looked_at(len(compared))
    chosen = np.zeros(total, dtype=np.bool_)
    chosen[compared] = True
    found = shingle(_texts(folder, counts, chosen), words=words, report=lambda done: progress("analysing", done, len(compared)))
    near = near_pairs(found, splits[compared], progress=lambda done, of: progress("comparing", done, of))
    later = np.flatnonzero(first != np.arange(len(first)))
    pairs = _Pairs(splits, np.array(rows.places, dtype=np.int64))
    pairs.add("exact", later, first[later], np.ones(len(later)))
    pairs.add("near", compared[near.later], compared[near.earlier], near.similarity)
    _write_pairs(out / PAIRS, folder, counts, pairs, lines)
    return {
        "rows": dict(counts),
        "copies": pairs.count("exact"),
        "near": {**pairs.count("near"), "similarity": NEAR, "looked_at": len(compared), "different": whole, "words": words},
        "pairs": min(len(pairs.items), LISTED_PAIRS),
        "labels": {split: label_counts(labels) for split, labels in rows.labels.items()},
        "turns": _turns(rows.turns),
        "languages": languages(_sample(folder, counts)),
    }


def text_of(record: Record) -> str:
    """What is compared of a row: all that is said in it but system messages, which many rows share."""
    parts = task_rows.parts(record)
    if parts is not None:
        return "\n".join(part["content"] for part in parts)
    if "messages" in record:
        return "\n".join(turn["content"] for turn in record["messages"] if turn["role"] != "system")
    return str(record["text"]) if "text" in record else f"{record['prompt']}\n{record['completion']}"


def _lines(folder: Path, counts: Mapping[str, int]) -> Iterator[tuple[str, int, bytes]]:
    """(split, place from 0, line) of every row, in the order of `SPLITS`."""
    for split in (split for split in SPLITS if counts.get(split)):
        with (folder / f"{split}.jsonl").open("rb") as file:
            for place, line in enumerate(file):
                yield split, place, line


def _read(folder: Path, counts: Mapping[str, int], report: Callable[[int], None]) -> _Rows:
    rows = _Rows()
    for done, (split, place, line) in enumerate(_lines(folder, counts), 1):
        rows.splits.append(SPLITS.index(split))
        rows.places.append(place)
        rows.hashes.append(int.from_bytes(hashlib.blake2b(line, digest_size=8).digest(), "little"))
        # Most rows have neither, and need not be parsed for it.
        if b'"label":' in line or b'"messages":' in line:
            record = json.loads(line)
            if "messages" in record:
                rows.turns[len(record["messages"])] += 1
            if "label" in record:
                rows.labels.setdefault(split, Counter())[str(record["label"])] += 1
        if done % 4096 == 0:
            report(done)
    return rows


def _first_places(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Of each row the first one that has its hash."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def _texts(folder: Path, counts: Mapping[str, int], chosen: NDArray[np.bool_]) -> Iterator[str]:
    for wanted, (_, _, line) in zip(chosen.tolist(), _lines(folder, counts), strict=True):
        if wanted:
            yield text_of(json.loads(line))


def _sample(folder: Path, counts: Mapping[str, int]) -> Iterator[str]:
    chosen = np.zeros(sum(counts.values()), dtype=np.bool_)
    chosen[spread(range(len(chosen)), LANGUAGE_ROWS)] = True
    return _texts(folder, counts, chosen)


def _turns(turns: Counter[int]) -> list[dict[str, int]]:
    """How many rows have so many messages; the last entry stands for all that have more (`more`)."""
    ordered = sorted(turns.items())
    shown = [{"turns": number, "rows": rows, "more": 0} for number, rows in ordered[:SHOWN_TURNS]]
    if rest := sum(rows for _, rows in ordered[SHOWN_TURNS:]):
        shown.append({"turns": ordered[SHOWN_TURNS][0], "rows": rest, "more": 1})
    return shown


class _Pairs:
    """Pairs of rows: (kind, later row, earlier row, similarity), by number over all splits."""

    def __init__(self, splits: NDArray[np.int8], places: NDArray[np.int64]) -> None:
        self.items: list[tuple[str, int, int, float]] = []
        self._splits, self._places = splits, places

    def add(self, kind: str, later: NDArray[np.int64], earlier: NDArray[np.int64], similarity: NDArray[np.float64]) -> None:
        """Appends pairs of one kind."""
        self.items += zip([kind] * len(later), later.tolist(), earlier.tolist(), similarity.tolist(), strict=True)

    def place(self, row: int) -> tuple[str, int]:
        """(split, place from 0) of a row."""
        return SPLITS[self._splits[row]], int(self._places[row])

    def count(self, kind: str) -> dict[str, Any]:
        """`within`: rows that repeat an earlier one of their split; `across`: rows of a split that repeat one of another."""
        found: dict[tuple[int, int], set[int]] = {}
        for own, later, earlier, _ in self.items:
            if own == kind:
                found.setdefault((int(self._splits[later]), int(self._splits[earlier])), set()).add(later)
        within = {SPLITS[one]: len(rows) for (one, other), rows in sorted(found.items()) if one == other}
        across = [
            {"split": SPLITS[one], "other": SPLITS[other], "rows": len(rows)}
            for (one, other), rows in sorted(found.items())
            if one != other
        ]
        return {"within": within, "across": across}

    def listed(self) -> list[tuple[str, int, int, float]]:
        """The first `LISTED_PAIRS`: those across splits first, then the nearest."""
        splits = self._splits
        ordered = sorted(self.items, key=lambda pair: (splits[pair[1]] == splits[pair[2]], -pair[3], pair[1], pair[2]))
        return ordered[:LISTED_PAIRS]


def _write_pairs(path: Path, folder: Path, counts: Mapping[str, int], pairs: _Pairs, kept: Path | None) -> None:
    listed = pairs.listed()
    wanted = {row for _, later, earlier, _ in listed for row in (later, earlier)}
    texts = {row: text_of(json.loads(line))[:SHOWN_CHARACTERS] for row, (_, _, line) in enumerate(_lines(folder, counts)) if row in wanted}
    lines = {split: kept_lines(kept, split) for split in counts} if kept else {}
    temporary = path.with_suffix(".part")
    with temporary.open("w", encoding="utf-8") as file:
        for kind, later, earlier, similarity in listed:
            pair: dict[str, Any] = {"kind": kind, "similarity": round(similarity, 3)}
            for prefix, row in (("", later), ("other_", earlier)):
                split, place = pairs.place(row)
                pair |= {f"{prefix}split": split, f"{prefix}row": place, f"{prefix}text": texts[row]}
                if lines.get(split) is not None:
                    pair[f"{prefix}line"] = int(lines[split][place])
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    temporary.replace(path)
