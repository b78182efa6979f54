"""Fixtures of the tests that need real servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.flow.site import Site, running_site
from tests.webapp.runs.live import Web


@pytest.fixture
def site(transactional_db: None, settings: Any) -> Iterator[Site]:
    """A site with Redis; the test starts the rest."""
    with running_site(settings) as running:
        yield running


@pytest.fixture
def web(site: Site) -> Web:
    """The site's web server."""
    return Web(site)
