"""Intervals and spreads against figures from tables and textbooks."""

from __future__ import annotations

import pytest

from webapp.runs.compare.statistics import Interval, counted, relative, spread, student, wilson


@pytest.mark.parametrize(
    ("freedom", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (29, 2.045), (120, 1.980)]
)
def test_the_t_of_the_tables(freedom: int, t: float) -> None:
    assert round(student(freedom), 3) == t


def test_another_level() -> None:
    assert round(student(5, 0.99), 3) == 4.032


def test_wilson_as_in_newcombe() -> None:
    # Newcombe 1998, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for hits, rows, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        found = wilson(hits / rows, rows)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)


def test_wilson_is_the_same_from_the_other_side() -> None:
    few, many = wilson(0.2, 50), wilson(0.8, 50)
    assert few.low == pytest.approx(1 - many.high, abs=1e-12)
    assert wilson(1.0, 20) == Interval(pytest.approx(1 - 0.1611, abs=1e-4), 1.0)


@pytest.mark.parametrize(("share", "rows"), [(0.5, 0), (1.2, 10), (-0.1, 10)])
def test_what_is_no_share_has_no_interval(share: float, rows: int) -> None:
    with pytest.raises(ValueError, match="no share"):
        wilson(share, rows)


def test_a_share_that_is_no_count_of_the_rows_is_found_out() -> None:
    assert counted(57 / 60, 60)
    assert counted(1 / 3, 2376)
    assert not counted(0.5, 7)
    assert not counted(1.5, 2)
    assert not counted(0.5, 0)


def test_mean_and_spread_over_seeds() -> None:
    found = spread([0.70, 0.72, 0.77])
    assert found.count == 3
    assert found.mean == pytest.approx(0.73)
    assert found.deviation == pytest.approx(0.036055512754639)
    assert found.interval is not None
    # 4.302653 x 0.0360555 / sqrt 3
    assert (found.interval.low, found.interval.high) == (pytest.approx(0.640433, abs=1e-6), pytest.approx(0.819567, abs=1e-6))


def test_one_value_has_no_spread() -> None:
    assert spread([4.0]) == type(spread([4.0]))(1, 4.0, None, None)
    with pytest.raises(ValueError, match="no values"):
        spread([])


def test_differences_as_shares() -> None:
    # The table of the experiment that the application repeats: 17.986 GB of full fine-tuning, 3.852 of LoRA, 2.514 of QLoRA.
    assert relative(3.852, 17.986) == pytest.approx(-0.786, abs=5e-4)
    assert relative(2.514, 17.986) == pytest.approx(-0.860, abs=5e-4)
    assert relative(None, 1.0) is None
    assert relative(1.0, 0.0) is None
