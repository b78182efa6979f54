"""`graft.json`: what a model's folder says of where its files came from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "graft.json"


@dataclass(frozen=True)
class Origin:
    """The model's name, the revision that its files are of (a commit, or the sha256 of the one file), its licence, and the place."""

    name: str
    revision: str
    licence: str
    source: str


def write_origin(folder: Path, origin: Origin) -> None:
    """Writes `graft.json` into a model's folder."""
    (folder / FILE).write_text(json.dumps(asdict(origin), indent=2) + "\n", encoding="utf-8")


def read_origin(folder: Path) -> Origin | None:
    """What `graft.json` says; None where it is absent or something else."""
    try:
        body = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return Origin(**{key: str(body[key]) for key in Origin.__dataclass_fields__})
    except (OSError, ValueError, KeyError, TypeError):
        return None
