"""Fixtures of more than one part of the suite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.flow.site import Site, running_site


@pytest.fixture
def site(transactional_db: None, settings: Any) -> Iterator[Site]:
    """A site with Redis; the test starts the rest."""
    with running_site(settings) as running:
        yield running
