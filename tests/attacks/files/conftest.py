"""The ground of each attack."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.corpus import make_model
from tests.attacks.files.boxed import Ground, ground


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Ground]:
    """Looked at again after the test: nothing else has happened."""
    with ground(tmp_path) as found:
        yield found


@pytest.fixture
def model(here: Ground) -> Path:
    """A model that is fit for use, to be spoilt."""
    return make_model(here.files / "model")
