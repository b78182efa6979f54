"""Fixtures of the tests about notices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.webapp.notices.receiver import Receiver, receiving
from tests.webapp.runs.rows import Bench, make_bench
from webapp.settings.env import ENV


@pytest.fixture
def bench(db: None, settings: Any, tmp_path: Path) -> Bench:
    """Alice's team, ready to launch."""
    settings.GRAFT_VAR = tmp_path
    return make_bench()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as server:
        yield server


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine is on the list of hosts that webhooks may reach."""
    monkeypatch.setattr(ENV, "outbound_hosts", "127.0.0.1")
