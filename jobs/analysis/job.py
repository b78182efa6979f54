"""An analysis as a job: its events, its file, and its download."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jobs.analysis.defaults import BATCHES, BITS, DIRECTIONS, EVENT, FILE
from jobs.analysis.report import Tell, analyse, brief
from jobs.data.token_cache import TokenCache
from jobs.errors import GraftError
from jobs.export.archive import archive
from jobs.export.export import slug
from jobs.spec import RunSpec, write_spec


def execute(
    spec: RunSpec,
    out: Path,
    *,
    emit: Callable[..., Any],
    stop: Callable[[], bool],
    cache: TokenCache,
    batches: int = BATCHES,
    directions: int = DIRECTIONS,
    bits: Sequence[int] = BITS,
) -> dict[str, Any]:
    """Analyses into the folder `out`, and returns all that was found. An interrupted analysis begins anew: none is long.

    Emits `phase` events, the `method` event `EVENT` with what `brief` leaves, and an `artifact` with `FILE`, which lies in `out` as well.
    Raises `GraftError` (`preempted` when `stop()` said so), or whatever else went wrong.
    """

    def tell(phase: str, done: int, total: int | None, unit: str) -> None:
        if stop():
            raise GraftError("preempted", step=0)
        emit("phase", name=phase, done=done, total=total, unit=unit)

    write_spec(spec, out)
    found = analyse(spec, cache, batches=batches, directions=directions, bits=bits, tell=tell)
    emit("method", step=0, name=EVENT, **brief(found))
    path = out / FILE
    path.write_text(json.dumps(found) + "\n", encoding="utf-8")
    _offer(path, spec.name, out, emit, tell)
    return found


def _offer(path: Path, name: str, out: Path, emit: Callable[..., Any], tell: Tell) -> None:
    """Packs the file `path` for download and announces it."""
    scratch = out / ".export"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        shutil.copyfile(path, scratch / path.name)
        target = out / "artifacts" / f"{slug(name)}-analysis.zip"
        packed = archive(scratch, target, lambda done, total: tell("saving", done, total, "bytes"))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    emit("artifact", **packed.event("analysis", out, {}))
