"""The kinds of a run: each has a command of the engine, a spec for it, and states of its own phases."""

from __future__ import annotations

import sys

from jobs.commands import compose, train
from webapp.runs.child import PROGRAMS
from webapp.runs.kinds import COMMANDS, RESUMABLE, Kind
from webapp.runs.services.handed import SPECS


def test_every_kind_has_its_command_and_its_spec() -> None:
    assert set(COMMANDS) == set(SPECS) == set(Kind)
    assert PROGRAMS[Kind.COMPOSE] == (sys.executable, "-m", "jobs", "compose")
    assert {COMMANDS[Kind.TRAIN], COMMANDS[Kind.COMPOSE]} == {module.__name__.rpartition(".")[2] for module in (train, compose)}
    assert {Kind.TRAIN} == RESUMABLE
