"""The sample model, where set-up has made it."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def sample_model() -> Path:
    """The folder that `make setup` makes; without it the tests on it fail and say so."""
    folder = Path(os.environ.get("GRAFT_SAMPLE_MODEL") or PROJECT / "var" / "sample-model")
    if not (folder / "graft.json").exists():
        pytest.fail("no sample model: run make setup")
    return folder
