"""The geometry of the chart: round ticks, points in their places, names that keep off each other."""

from __future__ import annotations

import pytest

from webapp.runs.experiments.scatter import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Point, scatter, ticks


@pytest.mark.parametrize(
    ("low", "high", "places"),
    [
        (2.5, 18.0, [0.0, 5.0, 10.0, 15.0, 20.0]),
        (0.25, 0.775, [0.2, 0.4, 0.6, 0.8]),
        (0.0, 1.0, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (100.0, 100.0, [90.0, 95.0, 100.0, 105.0, 110.0]),
        (0.0, 0.0, [-1.0, -0.5, 0.0, 0.5, 1.0]),
        (-0.3, 0.1, [-0.3, -0.2, -0.1, 0.0, 0.1]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, places: list[float]) -> None:
    assert ticks(low, high) == places


def test_points_stand_where_their_figures_are() -> None:
    chart = scatter([Point(1, "a", 0.0, 0.0), Point(2, "b", 10.0, 1.0, 0.8, 1.1)], str, str, x_least=0.0, y_least=0.0, y_most=1.0)
    first, second = chart.marks
    assert (first.x, first.y, first.bar) == (LEFT, HEIGHT - BOTTOM, None)
    assert (second.x, second.y) == (WIDTH - RIGHT, TOP)
    assert second.bar is not None
    assert second.bar[0] == pytest.approx(TOP + 0.2 * (HEIGHT - TOP - BOTTOM), abs=0.1)
    assert [tick.words for tick in chart.y_ticks] == ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"], "no share is above one"
    assert chart.x_ticks[0].at == LEFT
    assert second.anchor == "end", "a name at the right edge stands to the left of its point"


def test_names_of_neighbours_do_not_meet() -> None:
    chart = scatter([Point(1, "LoRA", 5.0, 0.5), Point(2, "QLoRA", 5.1, 0.5), Point(3, "far", 50.0, 0.9)], str, str)
    places = {(mark.text_x, mark.text_y) for mark in chart.marks}
    assert len(places) == 3
    lines = [mark.text_y for mark in chart.marks[:2]]
    overlap = chart.marks[0].anchor == chart.marks[1].anchor and abs(lines[0] - lines[1]) < 12
    assert not overlap


def test_one_point_alone_has_a_scale() -> None:
    chart = scatter([Point(1, "LoRA", 5e9, 0.0)], str, str, x_least=0.0, y_least=0.0, y_most=1.0)
    assert len(chart.x_ticks) > 1
    assert len(chart.y_ticks) > 1
