"""What a validation keeps beside the rows: every problem with its place, and where each written row stood in the file that came.

`problems.jsonl` holds one problem a line, as it was found; `<split>.npy` the line numbers of a split, int64 [rows].
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

FOLDER = "check"
PROBLEMS = "problems.jsonl"
LISTED_PROBLEMS = 100_000
_ENCODE = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ProblemList:
    """Writes problems as they are found, the first `LISTED_PROBLEMS` of each severity; without a folder it writes nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._file: IO[str] | None = None
        self._listed = {"error": 0, "warning": 0}
        if folder is not None:
            self._file = (folder / PROBLEMS).open("w", encoding="utf-8", errors="backslashreplace")

    def add(self, found: dict[str, Any]) -> None:
        """Appends one problem, as JSON with its split."""
        if self._file is not None and self._listed[found["severity"]] < LISTED_PROBLEMS:
            self._listed[found["severity"]] += 1
            self._file.write(_ENCODE(found) + "\n")

    def close(self) -> None:
        """No more are coming."""
        if self._file is not None:
            self._file.close()


def write_lines(folder: Path, keyed: dict[str, tuple[Any, Any]]) -> None:
    """Keeps the line numbers of each split, given (hashes, lines) of it."""
    import numpy as np

    for split, (_, lines) in keyed.items():
        np.save(folder / f"{split}.npy", lines.astype(np.int64), allow_pickle=False)


def kept_lines(folder: Path, split: str) -> Any:
    """The line numbers of a split, int64 [rows]; None where they were not kept."""
    import numpy as np

    path = folder / f"{split}.npy"
    return np.load(path, allow_pickle=False, mmap_mode="r") if path.is_file() else None
