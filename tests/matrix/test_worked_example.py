"""The worked example of CONTRIBUTING.md is a method: written as it stands there, with its line in the registry and nothing else."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from jobs.methods import registry
from tests.matrix.conformance import Cell, check

PAGE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def example(monkeypatch, tmp_path):
    """The id of the example, in the catalogue for the time of a test."""
    text = PAGE.read_text(encoding="utf-8")
    (line,) = re.findall(r'`"(\w+)": "([\w.]+):(\w+)",`', text)
    name, module, _ = line
    source = re.search(r"<!-- worked example: .*?-->\n```python\n(.*?)```", text, re.DOTALL).group(1)
    file = tmp_path / f"{name}.py"
    file.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(module, file)
    made = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, module, made)
    spec.loader.exec_module(made)
    monkeypatch.setitem(registry.METHODS, name, f"{module}:{line[2]}")
    return name


CELLS = [(16, "causal_lm", "llama"), (8, "causal_lm", "llama"), (4, "causal_lm", "llama"), (16, "sequence_classification", "roberta")]


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_all_that_it_claims_holds(example, cell, place, folder):
    bits, task, architecture = cell
    report = check(Cell(example, task, bits, architecture), place, folder)
    assert not report.failed, str(report)
