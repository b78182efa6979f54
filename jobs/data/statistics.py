"""What is counted while rows are validated. Memory grows by some 30 bytes a row, whatever the rows hold."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.data import task_rows
from jobs.data.check_files import ProblemList
from jobs.data.rows import Problem, Record, problem

KEPT_ERRORS = 200
KEPT_WARNINGS = 50
SHOWN_LABELS = 50
# Beyond this many different labels a column is no label, and counting goes on for those already known.
COUNTED_LABELS = 10_000
DUPLICATE_EXAMPLES = 20
_64_BITS = 2**64 - 1


class Findings:
    """Problems: all counted by code, the first ones kept for the report, as many as may be in a list."""

    def __init__(self, listed: ProblemList | None = None) -> None:
        self._listed = listed
        self.errors: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.kept: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []

    def add(self, found: Problem, split: str) -> None:
        """Counts a problem and keeps it where it is among the first."""
        counter, kept, limit = (
            (self.errors, self.kept, KEPT_ERRORS) if found.severity == "error" else (self.warnings, self.notes, KEPT_WARNINGS)
        )
        counter[found.code] += 1
        body = found.to_json() | {"split": split}
        if self._listed is not None:
            self._listed.add(body)
        # Notes about a whole file or split are few, and never crowded out by those of rows.
        if len(kept) < limit or (found.severity == "warning" and found.line == 0):
            kept.append(body)


class Statistics:
    """Figures of the good rows of one file, in their order."""

    def __init__(self) -> None:
        self.rows = 0
        self.bad = 0
        self.hashes = array("Q")
        self.lines = array("Q")
        self.characters = array("I")
        self.answers = array("I")
        self.turns = array("I")
        self.labels: Counter[str] = Counter()

    def add(self, record: Record, line: int, encoded: bytes) -> None:
        """Counts a record; `encoded` is its canonical line, by which copies are told: 64 bits of SipHash under this process's own key, so
        that nobody can make rows that are taken for copies.
        """
        self.rows += 1
        self.hashes.append(hash(encoded) & _64_BITS)
        self.lines.append(line)
        messages = record.get("messages")
        if messages is not None:
            characters = answers = 0
            for turn in messages:
                characters += (length := len(turn["content"]))
                if turn["role"] == "assistant":
                    answers += length
            self.characters.append(characters)
            self.answers.append(answers)
            self.turns.append(len(messages))
        elif (shown := task_rows.parts(record)) is not None:
            self.characters.append(sum(len(part["content"]) for part in shown))
            self.answers.append(sum(len(part["content"]) for part in shown if part["trained"]))
        elif "text" in record:
            self.characters.append(len(record["text"]))
        else:
            self.characters.append(len(record["prompt"]) + len(record["completion"]))
            self.answers.append(len(record["completion"]))
        label = record.get("label")
        if label is not None and (label in self.labels or len(self.labels) < COUNTED_LABELS):
            self.labels[label] += 1


def summary(figures: Iterable[array[int]]) -> dict[str, float | int] | None:
    """Least, median, mean, 95th percentile, greatest and total of the figures of all files; None where there are none."""
    import numpy as np

    values = np.concatenate([np.frombuffer(part, dtype=np.uint32) for part in figures if part] or [np.zeros(0, np.uint32)])
    if not len(values):
        return None
    return {
        "min": int(values.min()),
        "median": float(np.median(values)),
        "mean": round(float(values.mean()), 1),
        "p95": float(np.percentile(values, 95)),
        "max": int(values.max()),
        "total": int(values.sum(dtype=np.uint64)),
    }


def label_counts(labels: Counter[str]) -> dict[str, Any] | None:
    """The most frequent labels with their rows, and how many labels there are."""
    if not labels:
        return None
    shown = sorted(labels.items(), key=lambda item: (-item[1], item[0]))[:SHOWN_LABELS]
    return {"distinct": len(labels), "counts": [{"label": label, "rows": rows} for label, rows in shown]}


def label_notes(labels: Counter[str]) -> list[Problem]:
    """What is odd about the labels: only one, or some that differ in capitals and blanks alone."""
    notes = []
    if len(labels) == 1 and labels.total() > 1:
        notes.append(problem("label_single", severity="warning", label=next(iter(labels))[:80]))
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(" ".join(label.casefold().split()), []).append(label)
    for group in alike.values():
        if len(group) > 1:
            listed = ", ".join(f"'{label[:40]}'" for label in sorted(group)[:5])
            notes.append(problem("label_alike", severity="warning", labels=listed))
    return notes[:10]


def duplicates(splits: Mapping[str, tuple[Any, Any]]) -> tuple[dict[str, Any], list[Problem]]:
    """Copies within and across splits, given (hashes, lines) of each as arrays of uint64; and what to say about them."""
    import numpy as np

    within: dict[str, int] = {}
    across: list[dict[str, Any]] = []
    examples: list[dict[str, Any]] = []
    notes: list[Problem] = []
    for split, (hashes, lines) in splits.items():
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(hashes[order][1:] == hashes[order][:-1])
        within[split] = len(again)
        if len(again):
            notes.append(problem("duplicate_rows", severity="warning", count=len(again), split=split))
        for index in again[: DUPLICATE_EXAMPLES // 2]:
            first, second = lines[order[index]], lines[order[index + 1]]
            examples.append({"split": split, "line": int(second), "other": split, "other_line": int(first)})
    names = [name for name in ("train", "validation", "test") if name in splits]
    for number, other in enumerate(names):
        for split in names[number + 1 :]:
            shared = np.flatnonzero(np.isin(splits[split][0], splits[other][0]))
            if not len(shared):
                continue
            across.append({"split": split, "other": other, "rows": len(shared)})
            notes.append(problem("split_overlap", severity="warning", count=len(shared), split=split, other=other))
            for index in shared[: DUPLICATE_EXAMPLES // 4]:
                there = int(splits[other][1][np.flatnonzero(splits[other][0] == splits[split][0][index])[0]])
                examples.append({"split": split, "line": int(splits[split][1][index]), "other": other, "other_line": there})
    return {"within": within, "across": across, "examples": examples[:DUPLICATE_EXAMPLES]}, notes
