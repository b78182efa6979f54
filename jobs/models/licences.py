"""The licence that a folder of model files names: in its card, else in the first lines of its licence file. Free of torch."""

from __future__ import annotations

import re
from pathlib import Path

from jobs.models.origin import read_origin

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9 .+_-]{0,78})[\"']?[ \t]*(?:#.*)?$", re.MULTILINE)
_READ_BYTES = 64_000
# What the files of these licences begin with, by the licence's SPDX name.
_BEGINNINGS = (
    ("Apache-2.0", re.compile(r"Apache License\s+Version 2\.0")),
    ("MIT", re.compile(r"\bMIT License\b|Permission is hereby granted, free of charge")),
    ("GPL-3.0", re.compile(r"GNU GENERAL PUBLIC LICENSE\s+Version 3")),
    ("CC-BY-4.0", re.compile(r"Attribution 4\.0 International")),
)
_FILES = re.compile(r"LICEN[CS]E(\.(md|txt))?", re.IGNORECASE)


def read_licence(folder: Path) -> str:
    """The licence's name as the files say it; empty where they do not."""
    origin = read_origin(folder)
    if origin and origin.licence:
        return origin.licence[:80]
    return _of_card(folder / "README.md") or _of_file(folder)


def _of_card(card: Path) -> str:
    """The `license` of the front matter of a model card, read as text: no YAML of a stranger is parsed."""
    front = _FRONT_MATTER.match(_text(card))
    found = _LICENCE.search(front[1]) if front else None
    return found[1].strip() if found and found[1] != "other" else ""


def _of_file(folder: Path) -> str:
    for file in sorted(folder.iterdir()):
        if _FILES.fullmatch(file.name):
            text = _text(file)[:2000]
            return next((name for name, beginning in _BEGINNINGS if beginning.search(text)), "")
    return ""


def _text(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as source:
        return source.read(_READ_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
