"""Where the cells of one worker of the suite are worked on."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.matrix.conformance import Workplace
from tests.threads import single_threaded


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workplace]:
    """The small models, made once, and the processes that read downloads."""
    made = Workplace(tmp_path_factory.mktemp("matrix"))
    yield made
    made.close()


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder that goes with the test: a cell leaves some megabytes."""
    with tempfile.TemporaryDirectory(prefix="graft-matrix-") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The models are tiny, and results must not hang on how busy the machine is."""
    level = logging.getLogger("bitsandbytes").level
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line for each layer of each step
    with single_threaded(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.getLogger("bitsandbytes").setLevel(level)
