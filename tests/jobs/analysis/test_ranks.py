"""Suggestions of ranks from spectra that are known by hand."""

from __future__ import annotations

import pytest

from jobs.analysis.ranks import LayerSpectrum, Suggestion, by_module, spread_ranks, suggest_rank


def layer(name: str, squares: list[float], rest: float = 0.0, outputs: int = 10, inputs: int = 10) -> LayerSpectrum:
    values = [square**0.5 for square in squares]
    return LayerSpectrum(name, 0, name.rpartition(".")[2], outputs, inputs, values, sum(squares) + rest)


def test_the_effective_rank_counts_directions_until_the_share_is_held():
    spectrum = layer("a", [8, 1, 0.5, 0.5])
    assert [spectrum.effective_rank(share) for share in (0.5, 0.8, 0.85, 0.95, 1)] == [1, 1, 2, 3, 4]
    assert layer("a", [5, 1], rest=4).effective_rank(0.8) is None
    assert layer("a", [0, 0]).effective_rank(0.9) == 0
    assert layer("a", [5, 1], rest=4).captured == pytest.approx(0.6)
    assert layer("a", [5, 1], rest=4).held() == pytest.approx([0.5, 0.6])
    assert layer("a", [0, 0]).held() == [1.0, 1.0]


def test_one_rank_serves_three_layers_of_four():
    easy, hard = layer("a", [1.0, *[0.0] * 31]), layer("b", [1.0] * 20 + [0.0] * 12)
    assert suggest_rank([easy] * 4) == Suggestion(4, at_least=False)
    assert suggest_rank([easy] * 7 + [hard]) == Suggestion(4, at_least=False)
    assert suggest_rank([easy] * 5 + [hard] * 3) == Suggestion(32, at_least=False), "18 of 20 directions hold 90 %"
    assert suggest_rank([layer("c", [1.0] * 8, rest=100)] * 3) == Suggestion(8, at_least=True)


def test_spread_ranks_cost_no_more_and_go_where_energy_is():
    flat, steep = layer("flat", [1.0] * 16), layer("steep", [100.0, *[1e-6] * 15])
    assert spread_ranks([flat, steep], 4) == {"flat": 7, "steep": 1}
    wide = layer("wide", [1.0] * 16, outputs=30, inputs=10)
    ranks = spread_ranks([flat, steep, wide], 4)
    assert sum(ranks[one.name] * one.cost for one in (flat, steep, wide)) <= 4 * (20 + 20 + 40)
    assert min(ranks.values()) == 1
    assert spread_ranks([flat, layer("other", [1.0] * 16)], 16) == {"flat": 16, "other": 16}
    with pytest.raises(ValueError, match="a rank of 0"):
        spread_ranks([flat], 0)


def test_modules_are_summed_up_over_their_layers():
    found = by_module([layer("0.q", [1, 0]), layer("1.q", [1, 1]), layer("2.q", [1, 1], rest=8), layer("0.up", [1, 0])])
    assert found == {
        "q": {"layers": 3, "effective_rank_80": [1, 2, 3], "effective_rank_90": [1, 2, 3], "held": pytest.approx([0.5, 1.0])},
        "up": {"layers": 1, "effective_rank_80": [1, 1, 1], "effective_rank_90": [1, 1, 1], "held": [1.0, 1.0]},
    }
