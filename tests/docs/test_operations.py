"""docs/operations.md names every setting, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from tests.settings_names import settings_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def test_the_table_holds_exactly_the_settings_that_exist():
    table = PAGE.read_text().split("## Settings")[1]
    first_cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    named = {name for cell in first_cells for name in re.findall(r"`([A-Z_]+)`", cell)}
    assert named == settings_names()
