"""Fixtures of the tests about pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.webapp.cast import Cast, make_cast


@pytest.fixture
def cast(db: None, settings: Any, tmp_path: Path) -> Cast:
    """The people and their teams, in a `var` of their own."""
    settings.GRAFT_VAR = tmp_path
    return make_cast()
