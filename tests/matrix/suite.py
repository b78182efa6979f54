"""The cells of the matrix as parameters of tests, drawn from the catalogue: a new method needs no change here."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.methods.registry import all_methods
from tests.matrix.conformance import cells

# Those that have a file of their own; whatever else there may be is in test_other_families.py.
FAMILIES = ("low-rank", "reparametrisation", "sparse", "adapters", "selective", "prompts")


def cells_of(family: str | None) -> list[Any]:
    """The cells of all methods of a family; of `None`, of every family that has no file of its own."""
    methods = [method for method in all_methods() if (method.family if method.family in FAMILIES else None) == family]
    return [pytest.param(cell, id=str(cell)) for method in methods for cell in cells(method)]
