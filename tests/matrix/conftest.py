"""Where the cells of one worker of the suite are worked on."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.matrix.conformance import Workplace


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
    before, level = torch.get_num_threads(), logging.getLogger("bitsandbytes").level
    torch.set_num_threads(1)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a line for each layer of each step
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads(before)
    logging.getLogger("bitsandbytes").setLevel(level)
