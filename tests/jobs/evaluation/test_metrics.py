"""The figures of GLUE and SQuAD against values known from elsewhere."""

from __future__ import annotations

import math

import pytest

from jobs.evaluation import metrics, squad


def test_classes_as_scikit_learn_counts_them():
    expected, predicted = [0, 1, 2, 0, 1, 2], [0, 2, 1, 0, 0, 1]
    assert metrics.accuracy(predicted, expected) == pytest.approx(2 / 6)
    assert metrics.f1_macro(predicted, expected) == pytest.approx((0.8 + 0 + 0) / 3)
    # (correct * rows - sum of products) / sqrt of both spreads: (2 * 6 - (3*2 + 2*2 + 1*2)) / sqrt((36 - 14) * (36 - 12)).
    assert metrics.matthews(predicted, expected) == pytest.approx((12 - 12) / math.sqrt(22 * 24))
    assert metrics.matthews([1, 0, 1, 1], [1, 1, 1, 0]) == pytest.approx(-1 / 3)
    assert metrics.matthews([0, 1, 2, 2], [0, 1, 2, 1]) == pytest.approx((3 * 4 - 5) / math.sqrt((16 - 6) * (16 - 6)))


def test_f1_of_two_classes_is_that_of_the_second():
    found = metrics.classification([1, 1, 0, 0, 1], [1, 0, 0, 1, 1], classes=2)
    assert found == {
        "accuracy": pytest.approx(0.6),
        "f1_macro": pytest.approx((0.5 + 2 / 3) / 2),
        "f1_positive": pytest.approx(2 / 3),
        "matthews": pytest.approx((2 * 1 - 1 * 1) / 6),
    }
    assert "f1_positive" not in metrics.classification([0, 1], [0, 1], classes=3)


def test_what_has_no_value():
    assert metrics.classification([], [], classes=2) == {"accuracy": None, "f1_macro": None, "f1_positive": None, "matthews": None}
    assert metrics.matthews([1, 1], [0, 1]) == 0.0
    assert metrics.f1_of([0, 0], [0, 0], 1) == 0.0
    assert metrics.regression([1.0, 1.0], [1.0, 2.0]) == {"pearson": None, "spearman": None, "mean_squared_error": 0.5}
    assert metrics.regression([], []) == {"pearson": None, "spearman": None, "mean_squared_error": None}


def test_correlations():
    assert metrics.pearson([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert metrics.pearson([1e9 + 1, 1e9 + 2, 1e9 + 3], [3, 2, 1]) == pytest.approx(-1)
    assert metrics.ranks([5, 6, 7, 8, 7]).tolist() == [1, 2, 3.5, 5, 3.5]
    assert metrics.spearman([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.8207826816681233)
    assert metrics.spearman([1, 2, 3], [1, 10, 1000]) == pytest.approx(1)


def test_answers_as_squad_compares_them():
    assert squad.normalised("  The Eiffel-Tower, a\n tower! ") == "eiffeltower tower"
    assert squad.exact_match("The tower.", "tower") == 1.0
    assert squad.f1("in the old harbour", "old harbour town") == pytest.approx(2 * 2 / (3 + 3))
    assert squad.f1("red red", "red") == pytest.approx(2 / 3)
    assert (squad.f1("", ""), squad.f1("the", ""), squad.f1("word", "")) == (1.0, 1.0, 0.0)


def test_the_best_of_several_expected_answers_counts():
    found = squad.scores(["old harbour", "", "yes"], [["harbour", "the old harbour"], [], []])
    assert found == {"exact_match": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}
    assert squad.scores([], []) == {"exact_match": None, "f1": None}
