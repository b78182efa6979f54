"""How long a silence is a hang: by the setting, or by the steps where those are slow."""

from __future__ import annotations

import pytest

from webapp.runs.pace import STEPS, Pace
from webapp.settings.env import ENV


@pytest.mark.parametrize(
    ("moments", "seconds"),
    [
        ([], 600),
        ([10.0], 600),
        ([0.0, 1.0, 2.0], 600),
        ([0.0, 40.0, 80.0, 1000.0], STEPS * 40.0),
        ([50.0, 0.0], 600),
    ],
)
def test_twenty_usual_steps_or_the_setting(monkeypatch: pytest.MonkeyPatch, moments: list[float], seconds: float) -> None:
    monkeypatch.setattr(ENV, "stall_seconds", 600.0)
    pace = Pace()
    for moment in moments:
        pace.step(moment)
    assert pace.stall_seconds == seconds
