"""A question and a long text as overlapping windows, and the best answer among them (Devlin et al. 2019, arXiv:1810.04805, section 4.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from jobs.tasks.forward import Framing, Laid, Text, TextRow, text_inputs

LENGTH = 384
# Of a window's tokens, those that the one before it has too: an answer cut by a border stands whole in one of the two.
OVERLAP = 1 / 3
QUESTION_SHARE = 1 / 2
ANSWER_TOKENS = 30
CANDIDATES = 20


@dataclass(frozen=True)
class WindowRow(TextRow):
    """A window: `spans` int32 [length, 2] are the characters of the context that a token stands for, -1 where it is no token of it.
    `start` and `end` are the places of the answer's first and last token; both 0, the frame's first, where the window has no whole answer.
    """

    spans: NDArray[np.int32]
    start: int
    end: int

    @property
    def content(self) -> bytes:
        """Tokens and the answer's place."""
        return self.text.ids.tobytes() + np.array([self.start, self.end], dtype=np.int32).tobytes()


def windows(record: Any, tokenizer: Any, limit: int) -> list[WindowRow]:
    """The windows of a question, each of at most `limit` tokens, the question whole in each (or its first half of `limit`)."""
    question, context = cut_question(record["question"], tokenizer, limit), record["context"]
    room = limit - len(tokenizer(question, add_special_tokens=False, verbose=False)["input_ids"])
    room -= int(tokenizer.num_special_tokens_to_add(pair=True))
    found = tokenizer(
        question, context, truncation="only_second", max_length=limit, stride=int(room * OVERLAP), return_overflowing_tokens=True,
        return_offsets_mapping=True, return_token_type_ids=True, verbose=False,
    )  # fmt: skip
    answers = record["answers"]
    span = (answers[0]["answer_start"], answers[0]["answer_start"] + len(answers[0]["text"])) if answers else None
    rows = []
    for number, (ids, types) in enumerate(zip(found["input_ids"], found["token_type_ids"], strict=True)):
        spans = np.array(found["offset_mapping"][number], dtype=np.int32).reshape(-1, 2)
        spans[[sequence != 1 for sequence in found.sequence_ids(number)]] = -1
        text = Text(np.array(ids, dtype=np.int32), np.array(types, dtype=np.int32))
        rows.append(WindowRow(text, spans, *(place_of(spans, span) if span else (0, 0))))
    return rows


def cut_question(question: str, tokenizer: Any, limit: int) -> str:
    """A question, or as much of it as leaves half of a window to the text."""
    offsets = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    most = max(1, int(limit * QUESTION_SHARE))
    return question if len(offsets) <= most else question[: offsets[most - 1][1]]


def place_of(spans: NDArray[np.int32], answer: tuple[int, int]) -> tuple[int, int]:
    """The first and the last token of the characters `answer` (end excluded); (0, 0) where not all of them are in the window."""
    starts, ends = spans[:, 0], spans[:, 1]
    inside = np.flatnonzero((ends > answer[0]) & (starts < answer[1]) & (starts >= 0) & (ends > starts))
    if not len(inside) or starts[inside[0]] > answer[0] or ends[inside[-1]] < answer[1]:
        return 0, 0
    return int(inside[0]), int(inside[-1])


@dataclass(frozen=True)
class Found:
    """The best answer of one question: its words, and by how much it beats "no answer" (logits)."""

    text: str
    margin: float


def best_answer(context: str, rows: Sequence[WindowRow], logits: Sequence[Tensor]) -> Found:
    """The likeliest answer over all windows of a context; `logits` are [2, length] of each: where an answer begins and ends.

    The sum of the two is highest over pairs of the `CANDIDATES` best starts and ends, in order, of at most `ANSWER_TOKENS` tokens. "No
    answer" is the frame's first token, in the window that is least sure of it.
    """
    best, text, none = -np.inf, "", np.inf
    for row, window in zip(rows, logits, strict=True):
        starts, ends = (side.numpy().astype(np.float64) for side in window)
        none = min(none, starts[0] + ends[0])
        usable = row.spans[:, 0] >= 0
        first, last = (_likeliest(np.where(usable, side, -np.inf), usable) for side in (starts, ends))
        sums = starts[first][:, None] + ends[last][None]
        length = last[None] - first[:, None]
        sums = np.where((length >= 0) & (length < ANSWER_TOKENS), sums, -np.inf)
        if sums.size and sums.max() > best:
            row_place, column = np.unravel_index(int(sums.argmax()), sums.shape)
            best = float(sums.max())
            text = context[row.spans[first[row_place], 0] : row.spans[last[column], 1]]
    return Found(text, float(best - none))


def _likeliest(side: NDArray[np.float64], usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The places of the highest logits among the usable ones, at most `CANDIDATES`, the highest first."""
    return np.argsort(-side, kind="stable")[: min(CANDIDATES, int(usable.sum()))]


@dataclass(frozen=True)
class WindowKind:
    """The head gives each token two logits: the answer begins here, it ends here (a `jobs.tasks.forward.Kind`)."""

    framing: Framing

    def lay(self, rows: Sequence[WindowRow]) -> Laid:
        """Windows side by side."""
        targets = torch.tensor([[row.start, row.end] for row in rows])
        return Laid(text_inputs([row.text for row in rows], self.framing), targets, sum(len(row.ids) for row in rows))

    def logits(self, outputs: Any, laid: Laid) -> list[Tensor]:
        """[2, length] for each row."""
        lengths = laid.inputs["attention_mask"].sum(-1).tolist()
        return [sides[:, :length] for sides, length in zip(_sides(outputs, laid), lengths, strict=True)]

    def loss(self, outputs: Any, laid: Laid) -> Tensor:
        """The mean of the two cross-entropies over a window's places, summed over the rows; padding takes no part."""
        sides = _sides(outputs, laid)
        return functional.cross_entropy(sides.flatten(0, 1), laid.targets.flatten(), reduction="sum") / 2

    def hits(self, outputs: Any, laid: Laid) -> int:
        """How many windows have both ends right."""
        return int((_sides(outputs, laid).argmax(-1) == laid.targets).all(-1).sum())


def _sides(outputs: Any, laid: Laid) -> Tensor:
    """float32 [rows, 2, longest], minus infinity at padding."""
    sides = torch.stack((outputs.start_logits, outputs.end_logits), dim=1).float()
    return sides.masked_fill(laid.inputs["attention_mask"][:, None] == 0, -torch.inf)
