"""What a method is told of the run that it is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.spec import Task


@dataclass(frozen=True)
class Setup:
    """`seed` for all that is drawn; `rows` are the encoded training rows (`jobs.data.encoding.Encoded`) and `total_steps` the optimiser's
    steps, for methods that look at the data or follow a schedule; `adapters` are the folders of finished adapters that it builds on.
    """

    seed: int
    task: Task = "causal_lm"
    total_steps: int = 1
    rows: Sequence[Any] = ()
    tokenizer: Any = None
    adapters: tuple[Path, ...] = ()
