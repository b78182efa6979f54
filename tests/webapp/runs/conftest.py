"""Fixtures of the tests about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.webapp.runs.rows import Bench, make_bench


@pytest.fixture
def bench(db: None, settings: Any, tmp_path: Path) -> Bench:
    """Alice's team, ready to launch, in a `var` of its own."""
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    return make_bench()
