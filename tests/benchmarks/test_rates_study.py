"""The study of learning rates: what it is made of, and what its table says."""

from __future__ import annotations

import json

from benchmarks.rates_study import BASES, Outcome, cells, methods_of, table, write_rows
from jobs.methods.registry import METHODS, get_method


def test_every_method_that_needs_no_finished_adapters_is_tried_on_a_base_that_it_serves():
    tried = {method for base in BASES.values() for method in methods_of(base)}
    assert tried == set(METHODS) - {"adapter_fusion"}


def test_rates_lie_around_the_methods_own():
    found = list(cells([BASES["writer"]], ["lora", "full"], [0.333, 1.0, 3.0]))
    assert [(base.name, method) for base, method, _ in found] == [("writer", "lora")] * 3 + [("writer", "full")] * 3
    assert [rate for _, _, rate in found][1::3] == [get_method("lora").learning_rate, get_method("full").learning_rate]
    assert [rate for _, _, rate in found][:3] == [6.7e-05, 2e-4, 6e-4]


def test_a_method_is_left_out_of_a_base_that_it_does_not_serve():
    assert list(cells([BASES["encoder"]], ["cpt"], [1.0])) == []
    assert [method for _, method, _ in cells([BASES["writer"]], ["cpt"], [1.0])] == ["cpt"]


def test_the_table_shows_each_rate_and_the_best_of_them():
    rate = get_method("lora").learning_rate
    outcomes = [
        Outcome("writer", "lora", rate * 3, 8.0, None, None, "the loss is not finite"),
        Outcome("writer", "lora", rate, 8.0, 0.5, 0.75),
        Outcome("writer", "lora", rate / 2, 8.0, 1.25, 0.5),
    ]
    assert (
        table(outcomes).splitlines()[2]
        == "| writer | lora | 0.0002 | 0.0001: 1.250 (0.50), 0.0002: 0.500 (0.75), 0.0006: failed | 0.0002 |"
    )
    assert table(outcomes[:1]).splitlines()[2].endswith("| none |")


def test_rows_are_written_the_same_each_time(tmp_path):
    for name in ("first", "again"):
        write_rows("test", 5, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "again").read_bytes()
    assert [set(json.loads(line)) for line in (tmp_path / "first").read_text().splitlines()] == [{"messages", "label"}] * 5
