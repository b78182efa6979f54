"""Answers to choose from, as token ids in the place of a record's own answer: the same ids as if the record had been trained with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jobs.data.encoding import AnswerPlace
from jobs.evaluation.likelihood import Asked


def in_place(place: AnswerPlace, answers: Sequence[str], tokenizer: Any, *, closed: bool) -> Asked | None:
    """The prompt that all answers share, and each answer's own ids behind it; None where there is nothing to predict them from.

    `closed`: each ends with what ends an answer in training (end-of-turn or end-of-sequence token), so that an answer competes as a
    whole and never as the beginning of a longer one. The prompt ends where the first answer begins to differ from the bare prompt: where
    the tokenizer joins the end of the prompt with the beginning of an answer, both count as the answer's.
    """
    texts = [place.before, *(place.before + answer.strip() + (place.after if closed else "") for answer in answers)]
    bare, *rows = tokenizer(texts, add_special_tokens=place.special)["input_ids"]
    if place.special:
        bare, *rows = (_without_end(ids, tokenizer.eos_token_id) for ids in (bare, *rows))
    if closed and place.end:
        rows = [[*ids, tokenizer.eos_token_id] for ids in rows]
    shared = min(_shared_length([bare, *rows]), *(len(ids) - 1 for ids in rows))
    if shared < 1:
        return None
    return Asked(rows[0][:shared], [ids[shared:] for ids in rows])


def _without_end(ids: list[int], end: int) -> list[int]:
    """Some tokenizers end every text with an end-of-sequence token."""
    return ids[:-1] if ids and ids[-1] == end else ids


def _shared_length(rows: list[list[int]]) -> int:
    """How many ids all rows begin with. The least and the greatest row in lexical order differ first."""
    least, greatest = min(rows), max(rows)
    return next((place for place, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), min(len(least), len(greatest)))
