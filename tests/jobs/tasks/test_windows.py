"""Long texts in overlapping windows, and the best answer among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from jobs.tasks.forward import Text
from jobs.tasks.windows import WindowRow, best_answer, cut_question, place_of, windows
from tests.tiny_architectures import bert_tokenizer, roberta_tokenizer

CONTEXT = "".join(f"word{number:02d} " for number in range(20)).strip()


def record(answer: str | None) -> dict:
    answers = [{"text": answer, "answer_start": CONTEXT.index(answer)}] if answer else []
    return {"question": "which?", "context": CONTEXT, "answers": answers}


@pytest.mark.parametrize("tokenizer", [bert_tokenizer(), roberta_tokenizer()])
def test_windows_cover_the_text_and_overlap_by_a_third(tokenizer):
    rows = windows(record(None), tokenizer, 60)
    covered = np.zeros(len(CONTEXT), dtype=int)
    for row in rows:
        assert len(row.ids) <= 60
        assert (row.start, row.end) == (0, 0)
        seen = row.spans[row.spans[:, 0] >= 0]
        assert CONTEXT[seen[0, 0] : seen[-1, 1]] == tokenizer.decode([row.ids[place] for place in np.flatnonzero(row.spans[:, 0] >= 0)])
        covered[seen[0, 0] : seen[-1, 1]] += 1
    assert covered.min() == 1
    room = 60 - len("which?") - tokenizer.num_special_tokens_to_add(pair=True)
    assert (covered == 2).sum() >= (len(rows) - 1) * int(room / 3)


def test_an_answer_is_marked_in_every_window_that_holds_it_whole():
    rows = windows(record("word05 word06"), bert_tokenizer(), 60)
    start = CONTEXT.index("word05")
    holds = [row for row in rows if row.spans[:, 0].min(initial=0, where=row.spans[:, 0] >= 0) >= 0 and row.start]
    assert holds
    for row in holds:
        assert (row.spans[row.start, 0], row.spans[row.end, 1]) == (start, start + len("word05 word06"))
    for row in rows:
        seen = row.spans[row.spans[:, 0] >= 0]
        whole = seen[0, 0] <= start and seen[-1, 1] >= start + len("word05 word06")
        assert bool(row.start) == whole


def test_an_answer_cut_by_a_border_is_none():
    spans = np.array([[-1, -1], [0, 4], [5, 9], [-1, -1]], dtype=np.int32)
    assert place_of(spans, (0, 9)) == (1, 2)
    assert place_of(spans, (5, 7)) == (2, 2), "a token that holds more than the answer is taken whole"
    assert place_of(spans, (5, 12)) == (0, 0)
    assert place_of(spans, (20, 22)) == (0, 0)


def test_a_question_leaves_room_for_the_text():
    assert cut_question("x" * 100, bert_tokenizer(), 40) == "x" * 20
    assert cut_question("which?", bert_tokenizer(), 40) == "which?"
    rows = windows({"question": "x" * 100, "context": CONTEXT, "answers": []}, bert_tokenizer(), 40)
    assert max(len(row.ids) for row in rows) == 40


def window(spans: list[tuple[int, int]]) -> WindowRow:
    empty = np.zeros(len(spans), dtype=np.int32)
    return WindowRow(Text(empty, empty), np.array(spans, dtype=np.int32), 0, 0)


def test_the_best_answer_of_all_windows():
    first = window([(-1, -1), (0, 3), (4, 7)])
    second = window([(-1, -1), (4, 7), (8, 11)])
    logits = [torch.tensor([[1.0, 2, 0], [1.0, 0, 1]]), torch.tensor([[0.0, 4, 0], [0.5, 0, 3]])]
    found = best_answer("one two six", [first, second], logits)
    assert (found.text, found.margin) == ("two six", pytest.approx(4 + 3 - 0.5))


def test_an_answer_ends_after_it_begins_and_lies_in_the_text():
    row = window([(-1, -1), (0, 3), (4, 7)])
    found = best_answer("one two", [row], [torch.tensor([[9.0, 0, 5], [9.0, 5, 0]])])
    assert found.text in ("one", "two"), "neither the frame nor an answer from its end to its beginning"
    assert found.margin == pytest.approx(5 - 18)
