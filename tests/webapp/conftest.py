"""Fixtures of the tests about the web half: people and teams, and real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.flow.site import Site
from tests.webapp.cast import Cast, make_cast
from tests.webapp.runs.live import Web


@pytest.fixture
def cast(db: None, settings: Any, tmp_path: Path) -> Cast:
    """The people and their teams, in a `var` of their own."""
    settings.GRAFT_VAR = tmp_path
    return make_cast()


@pytest.fixture
def web(site: Site) -> Web:
    """The site's web server."""
    return Web(site)
