"""Modules of an unmodified model that were given a second way to run: which of the two they take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Switch:
    """One for all modules that are changed together: `on` only within `turned_on`, where they take our way, elsewhere their own."""

    def __init__(self) -> None:
        self.on = False

    @contextmanager
    def turned_on(self) -> Iterator[None]:
        """Within it our way is taken."""
        self.on = True
        try:
            yield
        finally:
            self.on = False
