"""The largest batch to be expected."""

import random
from dataclasses import replace
from statistics import fmean

import pytest

from jobs.planning.batches import RowLengths, largest_batch, mean_batch
from jobs.spec import TrainingSpec

TRAINING = TrainingSpec(micro_batch=8, gradient_accumulation=1)


def test_rows_of_one_length_make_one_batch():
    found = largest_batch(RowLengths.of([100], rows=500, label_share=0.25), TRAINING, 60, packed=True, shares_prefix=True)
    assert (found.rows, found.tokens, found.computed, found.labels, found.squares, found.longest) == (8, 800, 800, 200, 80_000, 100)


def test_the_largest_of_many_batches_is_that_of_real_draws():
    chance = random.Random(0)  # noqa: S311
    lengths = [chance.randint(20, 400) for _ in range(2000)]
    found = largest_batch(RowLengths.of(lengths), TRAINING, 250, packed=True, shares_prefix=False)
    drawn = fmean(max(sum(chance.sample(lengths, 8)) for _ in range(250)) for _ in range(40))
    assert found.tokens == pytest.approx(drawn, rel=0.03)
    assert found.tokens > 1.3 * mean_batch(RowLengths.of(lengths), TRAINING, packed=True, shares_prefix=False).tokens


def test_padding_and_shared_prefixes_change_what_is_computed():
    lengths = RowLengths.of([50, 100], rows=100, shared=20)
    assert mean_batch(lengths, TRAINING, packed=False, shares_prefix=True).computed == 8 * 100
    assert mean_batch(lengths, TRAINING, packed=True, shares_prefix=False).computed == 8 * 75
    assert mean_batch(lengths, TRAINING, packed=True, shares_prefix=True).computed == 8 * 75 - 7 * 20


def test_a_budget_of_tokens_bounds_the_batch():
    lengths = RowLengths.of([10, 60], rows=1000)
    budget = replace(TRAINING, micro_batch_tokens=128, gradient_accumulation=4)
    assert largest_batch(lengths, budget, 100, packed=True, shares_prefix=False).tokens == 128
    tight = replace(budget, micro_batch_tokens=32)
    assert largest_batch(lengths, tight, 100, packed=True, shares_prefix=False).tokens == 60  # a longer row goes alone


def test_rows_are_known_by_percentiles_cut_or_guessed():
    found = RowLengths.from_percentiles({0: 10, 50: 20, 100: 110}, rows=300)
    assert found.mean == pytest.approx((15 + 65) / 2, rel=0.01)
    assert (max(found.cut(64).lengths), found.rows) == (64, 300)
    guessed = RowLengths.unknown(replace(TRAINING, max_length=200))
    assert (guessed.lengths, guessed.known) == ((100,), False)
