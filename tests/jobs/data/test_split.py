"""The split by seed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.split import split_indices, spread


@settings(deadline=None)
@given(count=st.integers(0, 400), share=st.floats(0, 0.99), seed=st.integers(0, 2**31 - 1))
def test_every_row_goes_to_one_side_and_the_size_is_exact(count: int, share: float, seed: int):
    kept, held = split_indices(count, share, seed)
    assert sorted(kept + held) == list(range(count))
    assert kept == sorted(kept)
    assert held == sorted(held)
    expected = 0 if share == 0 or count < 2 else min(count - 1, max(1, round(count * share)))
    assert len(held) == expected


def test_the_choice_is_pinned():
    """Runs of old must find their validation rows again: whoever changes this changes every result."""
    assert split_indices(100, 0.05, 0)[1] == [11, 43, 76, 96, 99]
    assert split_indices(100, 0.05, 1)[1] != split_indices(100, 0.05, 0)[1]
    assert split_indices(100, 0.05, 0, salt="test")[1] != split_indices(100, 0.05, 0)[1]


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_no_part_of_the_file_is_preferred(share: float):
    held = split_indices(100_000, share, 7)[1]
    for start in range(0, 100_000, 10_000):
        inside = sum(start <= index < start + 10_000 for index in held)
        assert abs(inside - 10_000 * share) < 5 * (10_000 * share * (1 - share)) ** 0.5


def test_a_spread_takes_from_every_part_of_a_sorted_file():
    assert spread("aaabbbccc", 3) == ["a", "b", "c"]
    assert spread([5, 6, 7, 8, 9], 2) == [5, 7]
    assert spread([5, 6], 9) == [5, 6]
    assert spread([], 4) == []
