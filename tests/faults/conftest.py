"""A team that can launch, on a site whose processes a test starts and breaks."""

from __future__ import annotations

import pytest

from tests.flow.site import Site
from tests.webapp.runs.rows import Bench, make_bench


@pytest.fixture
def bench(site: Site) -> Bench:
    return make_bench()
