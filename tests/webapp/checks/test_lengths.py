"""What a maximum cuts off, in figures."""

from __future__ import annotations

import pytest

from webapp.checks.lengths import HEIGHT, WIDTH, Lengths, learns_nothing

RESULT = {
    "rows": 10, "looked_at": 10, "lengths": [[10, 5], [20, 4], [200, 1]], "first": [[8, 9], [150, 1]], "untrained": 0, "tokens": 330,
}  # fmt: skip


def test_shares_of_rows_tokens_and_rows_that_teach_nothing() -> None:
    cut = Lengths.of(RESULT).cut_at(100)
    assert (cut.rows_cut, cut.tokens_cut, cut.rows_lost) == (0.1, 100 / 330, 0.1)
    whole = Lengths.of(RESULT).cut_at(200)
    assert (whole.rows_cut, whole.tokens_cut, whole.rows_lost) == (0, 0, 0)


@pytest.mark.parametrize(("share", "tokens"), [(0.5, 10), (0.51, 20), (0.9, 20), (0.95, 200), (1, 200)])
def test_percentiles(share: float, tokens: int) -> None:
    assert Lengths.of(RESULT).percentile(share) == tokens


def test_the_recommendation_is_the_95th_percentile_in_multiples_of_64() -> None:
    assert Lengths.of(RESULT).recommended == 256
    assert Lengths.of({**RESULT, "lengths": [[64, 99], [65, 1]]}).recommended == 64


def test_bars_hold_every_row_and_stay_in_the_picture() -> None:
    bars = Lengths.of(RESULT).bars(100)
    assert sum(bar.rows for bar in bars) == 10
    assert [(bar.low, bar.high, bar.rows) for bar in bars if bar.rows] == [(1, 10, 5), (11, 20, 4), (191, 200, 1)]
    assert [bar.cut for bar in bars if bar.rows] == [False, False, True]
    assert all(0 <= bar.x <= WIDTH and bar.y + bar.height == pytest.approx(HEIGHT) for bar in bars)


def test_nothing_is_learned_only_where_every_row_was_looked_at() -> None:
    assert learns_nothing(RESULT, 7)
    assert not learns_nothing(RESULT, 8)
    assert not learns_nothing({**RESULT, "rows": 11}, 7)
