"""Hands a file to the program as the site does: the same commands, in the box, within the site's own limits."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import UserError
from webapp.catalog.services import add_from_upload
from webapp.catalog.services.describe import look_at
from webapp.core.box import QUICK, run_in_box
from webapp.datasets.services import validate

SECRET = "the-weights-and-rows-of-another-team"
# Well below what the services allow, so that a hundred files are read in minutes; what is bounded by it is said where it matters.
SECONDS = 60.0


@dataclass(frozen=True)
class Ground:
    """Where an attack takes place: `files` are handed over, `out` may be written, `theirs` is another team's, `marker` what code leaves."""

    root: Path
    files: Path
    out: Path
    theirs: Path
    marker: Path


@contextmanager
def ground(root: Path) -> Iterator[Ground]:
    """The ground, and afterwards: another team's files are as they were, no program has run, nothing lies where nothing may."""
    found = Ground(root, root / "ours", root / "out", root / "theirs", root / "marker")
    for folder in (found.files, found.out, found.theirs):
        folder.mkdir()
    (found.theirs / "model.safetensors").write_text(SECRET)
    (found.theirs / "secret.txt").write_text(SECRET)
    began = time.monotonic()
    yield found
    assert time.monotonic() - began < SECONDS
    assert sorted(path.name for path in root.iterdir()) == ["ours", "out", "theirs"]
    assert {path.name: path.read_text() for path in found.theirs.iterdir()} == {"model.safetensors": SECRET, "secret.txt": SECRET}
    for path in found.out.rglob("*"):
        assert not path.is_symlink()
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    # Of all children so far.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 < 4 * 2**30


def refused(work: Callable[[], Any], *words: str) -> UserError:
    """The refusal of `work`: an error of ours with code, message and remedy, that says these words and no secret."""
    with pytest.raises(UserError) as refusal:
        work()
    error = refusal.value
    assert error.code
    assert error.message
    assert error.remedy
    told = f"{error.message} {error.remedy} {error.where}"
    assert SECRET not in told
    for word in words:
        assert word in told, told
    return error


def take_model(folder: Path) -> dict[str, Any]:
    """As every way of adding a model ends. Raises `UserError`."""
    return look_at(folder, "their model")


def unpack(archive: Path, out: Path, limit: int = 10**9) -> dict[str, Any]:
    """As the zip of an upload is unpacked. Raises `UserError`."""
    return run_in_box(
        ["unpack", str(archive), "--out", str(out), "--limit", str(limit), "--json"],
        readable={archive: "model.zip"}, writable=out, limits=add_from_upload.LIMITS, on_line=lambda _: None,
    )  # fmt: skip


def sniff(file: Path, suffix: str = "") -> dict[str, Any]:
    """As an upload is recognised. Raises `UserError`."""
    return run_in_box(["sniff", str(file), "--json", *(("--suffix", suffix) if suffix else ())], readable={file: "rows"}, limits=QUICK)


def take_rows(file: Path, out: Path, suffix: str = "", **request: Any) -> dict[str, Any]:
    """As a version is validated; gives the outcome: `ok`, `report`. Raises `UserError`."""
    (out / "rows").mkdir()
    body = {"files": {"train": str(file)}, "out": str(out / "rows"), "suffixes": {"train": suffix} if suffix else {}, **request}
    limits = replace(validate.LIMITS, cpu_seconds=int(SECONDS), wall_seconds=SECONDS)
    return run_in_box(["validate", "--json"], request=body, readable={file: "rows"}, writable=out, limits=limits, on_line=lambda _: None)


def problems(outcome: dict[str, Any]) -> list[tuple[str, int]]:
    """(code, line) of the rows that were refused, each with its remedy."""
    found = outcome["report"]["problems"]
    assert all(one["message"] and one["remedy"] for one in found)
    return [(one["code"], one["line"]) for one in found]
