"""Which runs a grid or a list means, and what is said where it means none."""

from __future__ import annotations

import pytest

from jobs.methods.registry import METHODS, get_method
from webapp.runs.experiments.cells import LIMIT, Cell, cells_of, numbers, rates


def test_a_grid_is_every_combination_that_there_is() -> None:
    cells = cells_of({"methods": ["full", "lora"], "ranks": [8, 16], "rates": [None, 1e-4], "seeds": [0, 1]})
    assert len(cells) == 4 + 8, "full fine-tuning has no rank: it runs once for each rate and seed"
    assert cells[0] == Cell("full", {}, None, 0)
    assert cells[1] == Cell("full", {}, None, 1)
    assert cells[-1] == Cell("lora", {"rank": 16}, 1e-4, 1)


def test_a_rate_that_is_left_alone_is_each_methods_own() -> None:
    assert {cell.method: cell.rate for cell in cells_of({"methods": list(METHODS)})} == {
        name: get_method(name).learning_rate for name in METHODS
    }
    assert all(cell.learning_rate is None for cell in cells_of({"methods": list(METHODS)})), "it stays open, as in the form of one run"


def test_alpha_can_grow_with_the_rank() -> None:
    cells = cells_of({"methods": ["lora", "mora"], "ranks": [4, 64], "scale_alpha": True})
    assert [cell.settings for cell in cells] == [{"rank": 4, "alpha": 8.0}, {"rank": 64, "alpha": 128.0}, {"rank": 4}, {"rank": 64}]


def test_the_same_run_is_there_once_however_it_was_written() -> None:
    assert cells_of({"methods": ["lora"], "ranks": [16], "rates": [None, 2e-4]}) == [Cell("lora", {"rank": 16}, 2e-4, 0)]
    assert len(cells_of({"lines": "lora\nlora rank=16 alpha=32 rate=2e-4 seed=0\nlora seed=1"})) == 2


def test_a_rank_that_a_method_cannot_have_is_refused() -> None:
    with pytest.raises(ValueError, match="AdaLoRA"):
        cells_of({"methods": ["adalora"], "ranks": [1]})


def test_a_list() -> None:
    text = "# the three\nfull\n\nlora rank=16 alpha=16 rate=1e-4 seed=0-2  # thrice\nqlora"
    cells = cells_of({"lines": text})
    assert cells[0] == Cell("full")
    assert cells[1:4] == [Cell("lora", {"rank": 16, "alpha": 16.0}, 1e-4, seed) for seed in (0, 1, 2)]
    assert cells[4] == Cell("qlora")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("lora\nlorra", "Line 2: there is no method “lorra”"),
        ("full rank=4", "Line 1: Full fine-tuning has no setting “rank”. Known are rate, seed."),
        ("lora rank", "Line 1: “rank” is not of the form name=value."),
        ("lora rank=four", "Line 1: “four” is no value of rank."),
        ("lora rank=0", "Line 1: LoRA: "),
        ("lora rate=fast", "Line 1: “fast” is no learning rate."),
        ("lora seed=-1", "Line 1: “-1” is no whole number."),
    ],
)
def test_a_line_that_cannot_be_says_where_and_why(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault.replace(".", r"\.")):
        cells_of({"lines": text})


def test_numbers_as_people_write_them() -> None:
    assert numbers("0, 1;2 4-6 1 8..9", lowest=0, highest=10) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert numbers("", lowest=0, highest=10) == []
    with pytest.raises(ValueError, match="“12” is not from 1 to 10"):
        numbers("12", lowest=1, highest=10)
    with pytest.raises(ValueError, match="“5-2” is not from"):
        numbers("5-2", lowest=1, highest=10)
    with pytest.raises(ValueError, match=f"more than the {LIMIT} runs"):
        numbers("0-1000000", lowest=0, highest=2_000_000)


def test_rates_as_people_write_them() -> None:
    assert rates("1e-4, own 0.0002;1e-4") == [1e-4, None, 2e-4]
    for word in ("0", "11", "-1", "nan"):
        with pytest.raises(ValueError, match="above 0 and at most 10"):
            rates(word)


def test_names_of_runs() -> None:
    assert Cell("lora", {"rank": 16, "alpha": 8.0}, 1e-4, 3).suffix() == "lora-r16-alpha8-lr1e-4-s3"
    assert Cell("full").suffix() == "full-s0"
