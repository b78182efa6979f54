"""Each test computes on one thread; the small models are made once for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.threads import one_thread
from tests.tiny_architectures import make_tiny_architecture

__all__ = ["one_thread"]


@pytest.fixture(scope="package")
def models(tmp_path_factory) -> Path:
    """A tiny model of each kind."""
    place = tmp_path_factory.mktemp("models")
    for kind in ("llama", "bert", "roberta", "t5"):
        make_tiny_architecture(place / kind, kind)
    return place
