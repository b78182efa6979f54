"""Every row of a dataset checked, and the files of a dataset version written: `train.jsonl`, `validation.jsonl`, `test.jsonl`.

The files appear whole or not at all. Rows that cannot be used are refused, or left out where the caller chose that: never silently.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.data import fast_json
from jobs.data.check_files import FOLDER, ProblemList, write_lines
from jobs.data.convert import record_warnings, to_record
from jobs.data.formats import mapping_to_json
from jobs.data.records import mapping_for
from jobs.data.rows import Limits, Problem, Row, problem
from jobs.data.sources import Source, open_rows
from jobs.data.split import held_out
from jobs.data.statistics import Findings, Statistics, duplicates, label_counts, label_notes, summary
from jobs.data.verdict import blocking
from jobs.errors import UserError
from jobs.spec import Mapping

SPLITS = ("train", "validation", "test")
# `progress(rows read, lines of all files)`; the second is 0 where a file has no lines that could be counted.
Progress = Callable[[int, int], None]
_TOLD_EVERY = 4096
_BUFFER_BYTES = 2**20


@dataclass(frozen=True)
class ValidationRequest:
    """What is to be validated. Shares are of all good rows of the training file (of what the test rows leave, for validation rows),
    and count only where no file is given for that split. `suffixes`: what the files were called, where their paths do not say it.
    """

    files: dict[str, Path]
    mapping: Mapping | None = None
    skip_bad_rows: bool = False
    validation_share: float = 0.05
    test_share: float = 0.0
    seed: int = 0
    out: Path | None = None
    suffixes: dict[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Outcome:
    """`ok`: the dataset can be used, and (where `out` was given) its files are in place, as `manifest` says."""

    ok: bool
    report: dict[str, Any]
    manifest: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """The outcome as it crosses a process."""
        return {"ok": self.ok, "report": self.report, "manifest": self.manifest}


class _Writer:
    """One file under a temporary name; counts what is written."""

    def __init__(self, folder: Path, split: str, *, temporary: str = "") -> None:
        self.target = folder / f"{split}.jsonl"
        self.temporary = folder / f".{temporary or split}.jsonl.part"
        self._file = self.temporary.open("wb", buffering=_BUFFER_BYTES)
        self.rows = self.bytes = 0

    def write(self, line: bytes) -> None:
        """Appends one line, its line feed included."""
        self._file.write(line)
        self.rows += 1
        self.bytes += len(line)

    def finish(self) -> None:
        """Puts the bytes on the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def publish(self) -> dict[str, Any]:
        """Gives the file its name; what the manifest says of it. The hash is of what stands in the file."""
        with self.temporary.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        self.temporary.replace(self.target)
        return {"file": self.target.name, "rows": self.rows, "bytes": self.bytes, "sha256": sha256}

    def discard(self) -> None:
        """Removes what was not published."""
        self._file.close()
        self.temporary.unlink(missing_ok=True)


def validate(request: ValidationRequest, progress: Progress = lambda _done, _total: None) -> Outcome:
    """Validates and, where all is well, writes; what is wrong with which row goes to `out/check` in any case
    (`jobs.data.check_files`). Raises `UserError` where a file or the mapping as a whole cannot be used.
    """
    sources = {
        split: open_rows(request.files[split], request.limits, suffix=request.suffixes.get(split, ""))
        for split in SPLITS
        if split in request.files
    }
    mapping = mapping_for(sources["train"], request.mapping)
    for split in sources.keys() - {"train"}:
        mapping_for(sources[split], mapping, optional=False)
    with _writers(request.out) as writers, _check_folder(request.out) as check:
        findings = Findings(check.problems)
        reader = _Reader(sources, mapping, findings, progress)
        files = {split: reader.read(source, split, writers.open(split)) for split, source in sources.items()}
        parts = _split_by_seed(request, files["train"].figures.rows)
        keyed = _keyed(files, parts)
        report = _report(request, mapping, files, keyed, findings)
        check.keep(keyed)
        if not report["good"]:
            report["problems"].append(problem("no_rows").to_json() | {"split": "train"})
        ok = report["splits"].get("train", 0) > 0 and (request.skip_bad_rows or not report["bad"])
        manifest = writers.publish(parts) if ok else {}
    if request.out:
        _write_report(request.out, report)
    return Outcome(ok, report, manifest)


class _Check:
    """What is kept beside the rows (`jobs.data.check_files`), nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.problems = ProblemList(folder)

    def keep(self, keyed: dict[str, tuple[Any, Any]]) -> None:
        """Keeps the places of the rows of each split."""
        if self._folder is not None:
            write_lines(self._folder, keyed)


@contextmanager
def _check_folder(out: Path | None) -> Iterator[_Check]:
    folder = out / FOLDER if out else None
    if folder is not None:
        folder.mkdir(exist_ok=True)
    check = _Check(folder)
    try:
        yield check
    except BaseException:
        # Half a list says nothing that can be relied on.
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        check.problems.close()


class _Writers:
    """The writers of a version: one for each file read; the training file is dealt out again where a split by seed was asked for."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._open: dict[str, _Writer] = {}

    def open(self, split: str) -> _Writer | None:
        """A writer for a file that is read, or None where nothing is to be written."""
        if self._folder is None:
            return None
        self._open[split] = _Writer(self._folder, split, temporary="rows" if split == "train" else "")
        return self._open[split]

    def publish(self, parts: dict[str, Any]) -> dict[str, dict[str, Any]]:
        """Deals out the training rows by `parts` (masks by split), then gives every file its name."""
        if self._folder is None:
            return {}
        for writer in self._open.values():
            writer.finish()
        published = dict(self._open)
        if parts:
            published |= self._deal(self._folder, parts)
        for split in set(SPLITS) - published.keys():
            (self._folder / f"{split}.jsonl").unlink(missing_ok=True)
        return {split: published[split].publish() for split in SPLITS if split in published}

    def _deal(self, folder: Path, parts: dict[str, Any]) -> dict[str, _Writer]:
        import numpy as np

        dealt = {split: _Writer(folder, split) for split in ("train", *parts)}
        self._open |= {f"dealt {split}": writer for split, writer in dealt.items()}
        targets = list(dealt.values())
        places = np.zeros(self._open["train"].rows, dtype=np.uint8)
        for number, mask in enumerate(parts.values(), 1):
            places[mask] = number
        with self._open["train"].temporary.open("rb") as file:
            for place, line in zip(places.tobytes(), file, strict=True):
                targets[place].write(line)
        for writer in targets:
            writer.finish()
        return dealt

    def discard(self) -> None:
        """Removes whatever has no final name."""
        for writer in self._open.values():
            writer.discard()


@contextmanager
def _writers(folder: Path | None) -> Iterator[_Writers]:
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    writers = _Writers(folder)
    try:
        yield writers
    finally:
        writers.discard()


@dataclass(frozen=True)
class _File:
    source: Source
    figures: Statistics


class _Reader:
    """Reads the files one after another, and tells now and then how many rows it has read."""

    def __init__(self, sources: dict[str, Source], mapping: Mapping, findings: Findings, progress: Progress) -> None:
        lines = [source.facts()["lines"] or 0 for source in sources.values()]
        self._total, self._progress = sum(lines) if all(lines) else 0, progress
        self._mapping, self._findings = mapping, findings
        self._done = 0

    def read(self, source: Source, split: str, writer: _Writer | None) -> _File:
        """Every row of a file, written where it is good."""
        figures = Statistics()
        for item in source:
            self._count()
            record = to_record(item, self._mapping) if isinstance(item, Row) else item
            if isinstance(record, Problem):
                figures.bad += 1
                self._findings.add(record, split)
                continue
            if isinstance(item, Row):
                for warning in record_warnings(record, item):
                    self._findings.add(warning, split)
            line = fast_json.encode(record) + b"\n"
            figures.add(record, item.line, line)
            if writer is not None:
                writer.write(line)
        return _File(source, figures)

    def _count(self) -> None:
        self._done += 1
        if self._done % _TOLD_EVERY == 0:
            self._progress(self._done, self._total)


def _split_by_seed(request: ValidationRequest, rows: int) -> dict[str, Any]:
    """Masks over the good training rows (bool [rows]) of what goes to the test and the validation file."""
    import numpy as np

    parts: dict[str, Any] = {}
    left = np.ones(rows, dtype=np.bool_)
    for split, share in (("test", request.test_share), ("validation", request.validation_share)):
        if split in request.files or share <= 0:
            continue
        places = np.flatnonzero(left)
        mask = np.zeros(rows, dtype=np.bool_)
        mask[places[held_out(len(places), share, request.seed, salt=split)]] = True
        left &= ~mask
        if mask.any():
            parts[split] = mask
    return parts


def _keyed(files: dict[str, _File], parts: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """(hashes, lines) of the rows of each split, as arrays of uint64."""
    import numpy as np

    keyed = {
        split: (np.frombuffer(file.figures.hashes, np.uint64), np.frombuffer(file.figures.lines, np.uint64))
        for split, file in files.items()
        if file.figures.rows
    }
    if parts:
        hashes, lines = keyed["train"]
        rest = ~np.logical_or.reduce(list(parts.values()))
        keyed |= {split: (hashes[mask], lines[mask]) for split, mask in {"train": rest, **parts}.items()}
    return {split: keyed[split] for split in SPLITS if split in keyed}


def _add_notes(files: dict[str, _File], copies: list[Problem], findings: Findings) -> None:
    for split, file in files.items():
        for note in file.source.warnings:
            findings.add(note, split)
    for note in [*label_notes(files["train"].figures.labels), *copies]:
        findings.add(note, "train")


def _report(
    request: ValidationRequest, mapping: Mapping, files: dict[str, _File], keyed: dict[str, tuple[Any, Any]], findings: Findings
) -> dict[str, Any]:
    figures = [file.figures for file in files.values()]
    copies, notes = duplicates(keyed)
    _add_notes(files, notes, findings)
    good, bad = sum(one.rows for one in figures), sum(one.bad for one in figures)
    report = {
        "format": mapping.format,
        "mapping": mapping_to_json(mapping),
        "rows": good + bad,
        "good": good,
        "bad": bad,
        "skipped": bad if request.skip_bad_rows else 0,
        "files": {
            split: {"facts": file.source.facts(), "good": file.figures.rows, "bad": file.figures.bad} for split, file in files.items()
        },
        "splits": {split: len(hashes) for split, (hashes, _) in keyed.items()},
        "counts": dict(findings.errors.most_common()),
        "warning_counts": dict(findings.warnings.most_common()),
        "problems": findings.kept,
        "notes": findings.notes,
        "empty_answers": findings.errors["answer_empty"],
        "duplicates": copies,
        "labels": label_counts(sum((one.labels for one in figures), Counter())),
        "characters": summary(one.characters for one in figures),
        "answer_characters": summary(one.answers for one in figures),
        "turns": summary(one.turns for one in figures),
    }
    return report | {"blocking": blocking(report)}


def _write_report(folder: Path, report: dict[str, Any]) -> None:
    temporary = folder / ".report.json.part"
    temporary.write_text(json.dumps(report, ensure_ascii=False, indent=1), encoding="utf-8")
    temporary.replace(folder / "report.json")


def request_from_json(body: dict[str, Any]) -> ValidationRequest:
    """Reads a request as `python -m jobs validate` gets it. Raises `UserError("request_invalid")`."""
    from jobs.data.requests import Fields

    fields = Fields(body, known=("files", "mapping", "skip_bad_rows", "validation_share", "test_share", "seed", "out", "suffixes"))
    files = {split: Path(name) for split, name in fields.texts("files", SPLITS).items()}
    if "train" not in files:
        raise UserError("request_invalid", reason="'files' has no 'train'")
    out = fields.text("out")
    return ValidationRequest(
        files=files,
        mapping=fields.mapping(),
        skip_bad_rows=fields.flag("skip_bad_rows"),
        validation_share=fields.share("validation_share", 0.05),
        test_share=fields.share("test_share", 0.0),
        seed=fields.count("seed", 0, most=2**31 - 1),
        out=Path(out) if out else None,
        suffixes=fields.texts("suffixes", SPLITS),
    )
