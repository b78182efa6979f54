"""The run's state machine under random walks of people, workers, reaper and clock (tests/webapp/runs/machine.py)."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.webapp.runs import machine
from tests.webapp.runs.rows import make_bench
from webapp.runs import supervisor

# `make test-faults` walks further, on SQLite and on PostgreSQL.
EXAMPLES = int(os.environ.get("GRAFT_STATE_MACHINE_EXAMPLES", "40"))
STEPS = 40


@pytest.fixture
def site(db: None, settings: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> type[machine.Site]:
    settings.GRAFT_VAR = tmp_path
    settings.GRAFT_REDIS_URL = f"unix://{tmp_path}/nobody-listens.sock"
    monkeypatch.setattr(supervisor, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(machine.Site, "bench", make_bench(), raising=False)
    return machine.Site


def test_whatever_happens_the_invariants_hold(site: type[machine.Site]) -> None:
    walks = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        derandomize=EXAMPLES == 40,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(site, settings=walks)
