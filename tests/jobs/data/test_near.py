"""Near copies: what is found, what is not, and that the answer is the same every time."""

from __future__ import annotations

import random

import numpy as np

from jobs.data.near import NearPairs, near_pairs, shingle

RANDOM = random.Random(7)  # noqa: S311
WORDS = ["".join(RANDOM.choice("abcdefghij") for _ in range(6)) for _ in range(3000)]


def text(words: int = 60) -> list[str]:
    return [RANDOM.choice(WORDS) for _ in range(words)]


def pairs_of(texts: list[str], groups: list[int] | None = None) -> NearPairs:
    return near_pairs(shingle(texts, words=500), np.array(groups or [0] * len(texts), dtype=np.int8))


def told(found: NearPairs) -> list[tuple[int, int, float]]:
    return list(zip(found.later.tolist(), found.earlier.tolist(), found.similarity.round(3).tolist(), strict=True))


def test_a_row_with_one_word_changed_is_near_with_its_exact_similarity() -> None:
    first = text()
    second = [*first[:30], "changed", *first[31:]]
    others = [" ".join(text()) for _ in range(50)]
    # Of 58 shingles each, three hold the changed word: 55 are shared of 61.
    assert told(pairs_of([" ".join(first), *others, " ".join(second)])) == [(51, 0, round(55 / 61, 3))]


def test_rows_that_share_half_are_not_near_and_rows_without_words_are_passed_over() -> None:
    first = text()
    assert told(pairs_of([" ".join(first), "", "?!", " ".join([*first[:30], *text(30)])])) == []


def test_case_and_punctuation_do_not_count_and_texts_of_a_word_are_compared_whole() -> None:
    assert told(pairs_of(["Billing!", "billing", "billings"])) == [(1, 0, 1.0)]


def test_scripts_without_spaces_are_compared_by_character() -> None:
    first = "私の荷物はどこにありますか教えてください今日中に必要です"
    assert [pair[:2] for pair in told(pairs_of([first, first[:-1] + "た", "請求書が間違っています確認してください"]))] == [(1, 0)]


def test_every_near_pair_of_many_is_met_and_twice_the_same() -> None:
    bases = [text() for _ in range(400)]
    changed = [[*base[:20], "x", *base[21:]] for base in bases]
    texts = [" ".join(words) for words in (*bases, *changed)]
    found = told(pairs_of(texts))
    assert [pair[:2] for pair in found] == [(400 + number, number) for number in range(400)]
    assert found == told(pairs_of(texts))


def test_a_row_is_paired_with_the_nearest_of_each_group() -> None:
    base = text()
    texts = [" ".join(base), " ".join([*base[:10], "x", *base[11:]]), " ".join([*base[:10], "x", *base[11:40], "y", *base[41:]])]
    assert [pair[:2] for pair in told(pairs_of(texts, [0, 0, 1]))] == [(1, 0), (2, 1)]
    assert [pair[:2] for pair in told(pairs_of(texts, [0, 1, 2]))] == [(1, 0), (2, 0), (2, 1)]


def test_a_thousand_copies_are_a_thousand_pairs() -> None:
    base = " ".join(text())
    assert len(pairs_of([base] * 1001).later) == 1000
