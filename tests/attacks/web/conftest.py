"""The people, their things, and a real web server, for attacks on the site."""

from __future__ import annotations

import pytest

from tests.attacks.web.impatient import HastyWeb
from tests.flow.site import Site
from tests.webapp.cast import Cast
from tests.webapp.conftest import cast, web  # noqa: F401 - fixtures
from tests.webapp.test_every_url import Things, make_things


@pytest.fixture
def hasty(site: Site) -> HastyWeb:
    """The site's web server, with little patience."""
    return HastyWeb(site)


@pytest.fixture
def things(cast: Cast) -> Things:  # noqa: F811
    """One of each, all of Alice's team."""
    return make_things(cast)
