"""The sample model, where set-up has made it."""

import os
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def sample_model() -> Path:
    """The folder that `make setup` makes; without it (no package index was at hand), the tests on it are skipped by name."""
    folder = Path(os.environ.get("GRAFT_SAMPLE_MODEL") or PROJECT / "var" / "sample-model")
    if not (folder / "graft.json").exists():
        pytest.skip("no sample model: run make setup")
    return folder
