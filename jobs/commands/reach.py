"""What of the host a supervised child reaches: of the site's own folder only what its run names, and no connection to anywhere."""

from __future__ import annotations

import argparse
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from jobs.confinement import EVERYTHING, PLAIN_FILES, READ, all_but, limit_files, no_connections, no_powers
from jobs.spec import read_json


def leave_to_others(arguments: argparse.Namespace) -> None:
    """Gives up, for good, all of the folder `--private` but the files that the spec names and the folders that the run writes; and every
    connection, so that nothing listening on this host can be asked in its name. Without `--private`, nothing.

    To be called before the first thread and before a file of a stranger is read. Raises `UserError` where the spec cannot be read.
    """
    if arguments.private is None:
        return
    written = [arguments.out, arguments.token_cache, *map(Path, filter(None, (os.environ.get("HOME"), os.environ.get("GRAFT_REGIONS"))))]
    with suppress(OSError):  # a full disk is told by who writes there
        for folder in written:
            folder.mkdir(parents=True, exist_ok=True)
        _lead_to_engine()
    read = [*_paths(read_json(arguments.spec)), str(arguments.spec), *map(str, getattr(arguments, "resume", ()))]
    private = os.path.realpath(arguments.private)
    rules = [*all_but(private), *((path, READ) for path in read if _is_below(path, private))]
    rules += [(str(folder), PLAIN_FILES) for folder in written if _is_below(str(folder), private)]
    home = os.environ.get("HOME", "")
    if home and _is_below(home, private):  # libraries make pipes and links for themselves
        rules.append((home, EVERYTHING))
    limit_files(rules)
    no_powers()
    no_connections()


def _lead_to_engine() -> None:
    """A way to the engine's code for programs that this one starts: the folder that it lies in can no longer be listed where it is also
    that of the private one.
    """
    home = Path(os.environ.get("HOME") or tempfile.gettempdir())
    link = home / "jobs"
    with suppress(FileExistsError):
        link.symlink_to(Path(__file__).resolve().parents[1])
    os.environ["PYTHONPATH"] = str(home)


def _is_below(path: str, folder: str) -> bool:
    """Whether a path lies in a folder, links followed, and is not the folder itself."""
    real = os.path.realpath(path)
    return real != folder and os.path.commonpath([real, folder]) == folder


def _paths(body: Any) -> list[str]:
    """The paths that a spec of a run or of a composition holds, by the fields that are paths: what people have typed, such as the name of
    the run or a setting, may look like one.
    """
    model, data, method = (body.get(part) or {} for part in ("model", "data", "method"))
    named = [model.get("path"), *(data.get(split) for split in ("train", "validation", "test")), *(method.get("adapters") or ())]
    return [path for path in (*named, *(part.get("path") for part in body.get("adapters") or ())) if path]
