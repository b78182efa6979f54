"""torch on one thread: the models of tests are tiny, and results must not hang on how busy the machine is. A `conftest.py` imports the
fixture that it wants for its folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch


@contextmanager
def single_threaded() -> Iterator[None]:
    """One thread within it, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For each test anew: a run that is part of one may set its own number."""
    with single_threaded():
        yield


@pytest.fixture(scope="package", autouse=True)
def one_thread_throughout() -> Iterator[None]:
    """For a folder as a whole, fixtures of modules included."""
    with single_threaded():
        yield
