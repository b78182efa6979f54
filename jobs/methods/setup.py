"""What a method is told of the run that it is applied to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.spec import Task


@dataclass(frozen=True)
class Setup:
    """`seed` for all that is drawn; `rows` are the encoded training rows (`jobs.data.encoding.Encoded`) and `total_steps` the optimiser's
    steps, for methods that look at the data or follow a schedule; `heads` are the modules that the task put upon the base anew, which every
    method trains whole and saves with its adapter; `adapters` are the folders of finished adapters that it builds on.
    `base_folder` holds the base's files as they are stored. `kept` is what the hooks left in the checkpoint that the run goes on from, none
    for a new one: what would be found out anew is taken from there. `progress(done, total, unit)` tells how far a long start is.
    """

    seed: int
    task: Task = "causal_lm"
    total_steps: int = 1
    rows: Sequence[Any] = ()
    tokenizer: Any = None
    heads: tuple[str, ...] = ()
    adapters: tuple[Path, ...] = ()
    base_folder: Path | None = None
    kept: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int, str], None] = lambda _done, _total, _unit: None
