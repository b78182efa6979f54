"""An adapter's folder as peft writes it: a config, and tensors that are read one at a time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.export.shards import StoredTensor, read_header

# What peft puts before the name of a module of the base.
PREFIX = "base_model.model."


class AdapterFile:
    """The config and the tensors of an adapter; it keeps account of those that were taken."""

    def __init__(self, folder: Path) -> None:
        """Reads the config and the header of the weights. Raises `OSError`, `ValueError`."""
        self.config: Mapping[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        self._tensors = {tensor.name: tensor for tensor in read_header(folder / WEIGHTS)}
        self._taken: set[str] = set()

    def take(self, key: str) -> StoredTensor | None:
        """The tensor of that whole name, or None."""
        tensor = self._tensors.get(key)
        if tensor:
            self._taken.add(key)
        return tensor

    def take_all(self, module: str, *leaves: str) -> list[StoredTensor] | None:
        """Every one of a module's tensors `leaves`, or None (and none taken) where one is missing."""
        keys = [f"{PREFIX}{module}.{leaf}" for leaf in leaves]
        if not all(key in self._tensors for key in keys):
            return None
        self._taken.update(keys)
        return [self._tensors[key] for key in keys]

    def left(self) -> set[str]:
        """The names of the tensors that nothing has taken."""
        return self._tensors.keys() - self._taken

    def setting(self, name: str, module: str, patterns: str) -> float:
        """A setting of a module: of the first key of `config[patterns]` that matches the end of its name (peft's rule), else `name`'s."""
        found = self.config.get(patterns) or {}
        value: float = next((value for key, value in found.items() if re.match(rf"(.*\.)?({key})$", module)), self.config[name])
        return value
