"""docs/methods.md is what the catalogue of today gives."""

from __future__ import annotations

import subprocess
import sys

import pytest

from jobs.methods.registry import all_methods
from tools.methods_page import PAGE, Facts, draw, matrix


def test_the_page_is_drawn_from_the_catalogue_of_today():
    page = PAGE.read_text(encoding="utf-8")
    assert draw(page, Facts.read()) == page, "python -m tests.matrix.parameters && python -m tools.methods_page"


def test_every_method_has_its_row_and_its_chapter():
    page = PAGE.read_text(encoding="utf-8")
    for method in all_methods():
        assert page.count(f"| `{method.id}` |") == 1
        assert page.count(f'<a id="{method.id}"></a>{method.name}\n') == 1
        assert all(f"(`{setting.name}`)" in page for setting in method.settings)


def test_what_was_measured_at_other_defaults_is_not_shown():
    lora = next(method for method in all_methods() if method.id == "lora")
    facts = Facts("a model", {"lora": {"settings": {**lora.resolve({}), "rank": 4}, "trained": 1}})
    with pytest.raises(LookupError, match="not measured"):
        matrix([lora], facts)


def test_it_needs_no_torch():
    program = "import sys, tools.methods_page as page; page.draw(page.PAGE.read_text(), page.Facts.read()); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
