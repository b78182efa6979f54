"""The catalogue of tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jobs.data.formats import FIELDS
from jobs.spec import TASKS
from jobs.tasks.registry import ENTRIES, get_task, make_work
from jobs.tasks.work import Work


def test_every_task_of_the_spec_has_an_entry_and_what_does_it():
    assert tuple(entry.id for entry in ENTRIES) == TASKS
    for entry in ENTRIES:
        work = make_work(entry.id)
        assert isinstance(work, Work)
        assert work.writes == (entry.id == "causal_lm")
        assert entry.help.endswith(".")
        assert len({metric.id for metric in entry.metrics}) == len(entry.metrics) > 0
        assert entry.required_columns == FIELDS[entry.layouts[0]][0]


def test_a_page_reads_it_without_torch():
    script = (
        "import sys; from jobs.tasks.registry import ENTRIES; import json; print(json.dumps([entry.to_json() for entry in ENTRIES])); "
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert '"required_columns": ["question", "context", "answers"]' in done.stdout


def test_columns_of_a_pair_may_be_left_out():
    assert get_task("sequence_classification").optional_columns == ("text_b",)


def test_the_page_names_every_task_with_its_columns_and_figures():
    page = (Path(__file__).resolve().parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == set(TASKS)
    for entry in ENTRIES:
        named = {metric.id for metric in entry.metrics} - ({"loss"} if entry.id != "causal_lm" else set())
        own = entry.id not in ("causal_lm", "seq2seq_lm")
        for name in (*named, *entry.required_columns * own, *entry.optional_columns * own):
            assert f"`{name}`" in rows[entry.id], (entry.id, name)
