"""Records as token ids with a mark on each token that is trained on.

Marks come from character spans of the rendered text and the tokenizer's offsets, never from token ids: in many models the padding token,
the end-of-turn token and the end-of-sequence token are one and the same. A record is tokenised whole, so that training sees what the
tokenizer makes of the finished text; the prompt of a generation is the same ids, up to the first one of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.errors import UserError

Record = Mapping[str, Any]
Span = tuple[int, int]

LENGTH_CAP = 4096
LENGTH_MULTIPLE = 64
_BATCH_ROWS = 256
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Encoded:
    """One row: `ids` int32 [length], `trained` bool [length] (the first token never is: nothing precedes it)."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]


@dataclass(frozen=True)
class EncodedRows:
    """`rows[i]` comes from record number `indices[i]` of what was given; `cut` rows were shortened to `max_length` tokens,
    `dropped` ones left no token to learn from.
    """

    rows: list[Encoded]
    indices: list[int]
    max_length: int
    cut: int
    dropped: int

    @property
    def tokens(self) -> int:
        """All tokens of all rows."""
        return sum(len(row.ids) for row in self.rows)

    @property
    def label_tokens(self) -> int:
        """Those that are trained on."""
        return sum(int(row.trained.sum()) for row in self.rows)


@dataclass(frozen=True)
class _Rendered:
    """A record as text: the spans of characters that are trained on, and those of every answer (weight 0 included)."""

    text: str
    spans: list[Span]
    answers: list[Span]
    special: bool  # whether the tokenizer adds its special tokens (a chat template has written them into the text)
    end: bool  # whether an end-of-sequence token follows


def encode_records(
    records: Iterable[Record],
    tokenizer: Any,
    *,
    loss_on: str = "completion",
    max_length: int | None = None,
    length_limit: int = LENGTH_CAP,
    progress: Callable[[int], None] | None = None,
) -> EncodedRows:
    """Encodes records, shortens them to `max_length` tokens, and leaves out those without a token to learn from.

    `max_length` None means: the 99th percentile of the lengths, rounded up to a multiple of 64, at most `length_limit` (what the
    model's positions allow) and 4096. `progress` gets the number of records done. Raises `UserError("template_refused")`.
    """
    rows: list[Encoded] = []
    for row in _encode_all(records, tokenizer, loss_on):
        rows.append(row)
        if progress and len(rows) % _BATCH_ROWS == 0:
            progress(len(rows))
    limit = min(max_length, length_limit) if max_length else min(_natural_length(rows), length_limit)
    cut = [Encoded(row.ids[:limit], row.trained[:limit]) for row in rows]
    indices = [index for index, row in enumerate(cut) if row.trained.any()]
    return EncodedRows(
        rows=[cut[index] for index in indices],
        indices=indices,
        max_length=limit,
        cut=sum(len(row.ids) > limit for row in rows),
        dropped=len(rows) - len(indices),
    )


def require_labels(encoded: EncodedRows) -> None:
    """Raises `UserError("nothing_to_learn")` where no row is left."""
    if not encoded.rows:
        raise UserError("nothing_to_learn", max_length=encoded.max_length)


def prompt_ids_for_generation(record: Record, tokenizer: Any) -> list[int] | None:
    """The ids before the last answer of a record, generation prompt included; None for plain text and chats without an answer."""
    messages = record.get("messages")
    if messages is not None:
        last = _last_answer(messages)
        record = {"messages": messages[: last + 1]} if last is not None else {"text": ""}
    if expected_answer(record) is None:
        return None
    rendered = _render(record, tokenizer, "completion", 0)
    encoding = tokenizer([rendered.text], add_special_tokens=rendered.special, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"][0], np.asarray(encoding["offset_mapping"][0]).reshape(-1, 2)
    answer = np.flatnonzero(_overlap(offsets, [rendered.answers[-1]]))
    return list(ids[: answer[0]]) if len(answer) else list(ids)


def expected_answer(record: Record) -> str | None:
    """The text of the last answer: the completion, or the last assistant message. None where there is none."""
    if "completion" in record:
        return str(record["completion"])
    messages = record.get("messages", ())
    last = _last_answer(messages)
    return None if last is None else str(messages[last]["content"])


def _last_answer(messages: Sequence[Mapping[str, Any]]) -> int | None:
    return next((index for index in reversed(range(len(messages))) if messages[index]["role"] == "assistant"), None)


def _natural_length(rows: Sequence[Encoded]) -> int:
    """The 99th percentile of the lengths, rounded up to `LENGTH_MULTIPLE`, at most `LENGTH_CAP`."""
    if not rows:
        return LENGTH_MULTIPLE
    percentile = float(np.percentile([len(row.ids) for row in rows], 99))
    return min(LENGTH_CAP, -(-int(np.ceil(percentile)) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)


def _encode_all(records: Iterable[Record], tokenizer: Any, loss_on: str) -> Iterator[Encoded]:
    stream = iter(_render(record, tokenizer, loss_on, index) for index, record in enumerate(records))
    while batch := list(islice(stream, _BATCH_ROWS)):
        for special in (True, False):
            if all(rendered.special is special for rendered in batch):
                yield from _tokenise(batch, tokenizer, special)
                break
        else:
            for rendered in batch:
                yield from _tokenise([rendered], tokenizer, rendered.special)


def _tokenise(batch: list[_Rendered], tokenizer: Any, special: bool) -> Iterator[Encoded]:
    encodings = tokenizer([rendered.text for rendered in batch], add_special_tokens=special, return_offsets_mapping=True)
    for rendered, token_ids, offsets in zip(batch, encodings["input_ids"], encodings["offset_mapping"], strict=True):
        ids = np.asarray(token_ids, dtype=np.int32)
        trained = _overlap(np.asarray(offsets, dtype=np.int64).reshape(-1, 2), rendered.spans)
        if rendered.end and (len(ids) == 0 or ids[-1] != tokenizer.eos_token_id):
            ids = np.append(ids, np.int32(tokenizer.eos_token_id))
            trained = np.append(trained, bool(rendered.spans))
        trained[:1] = False
        yield Encoded(ids, trained)


def _overlap(offsets: NDArray[np.int64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Bool [tokens]: which tokens hold a character of a span. Special tokens that stand for no character hold none."""
    trained = np.zeros(len(offsets), dtype=np.bool_)
    starts, ends = offsets[:, 0], offsets[:, 1]
    for first, last in spans:
        trained |= (starts < last) & (ends > first) & (ends > starts)
    return trained


def _render(record: Record, tokenizer: Any, loss_on: str, index: int) -> _Rendered:
    everything = loss_on == "all"
    if "messages" in record:
        text, answers, taught = _render_chat(record["messages"], tokenizer, index)
        return _Rendered(text, [(0, len(text))] if everything else taught, answers, special=False, end=False)
    if "completion" in record:
        prompt, text = record["prompt"], record["prompt"] + record["completion"]
        answer = (len(prompt), len(text))
        return _Rendered(text, [(0, len(text)) if everything else answer], [answer], special=True, end=True)
    text = record["text"]
    return _Rendered(text, [(0, len(text))], [], special=True, end=True)


def _render_chat(messages: Sequence[Mapping[str, Any]], tokenizer: Any, index: int) -> tuple[str, list[Span], list[Span]]:
    """The chat's text, the spans of its answers, and of those among them that are trained on (`weight` not 0)."""
    try:
        if _GENERATION_BLOCK.search(tokenizer.chat_template):
            text, spans = _generation_spans(messages, tokenizer)
        else:
            text = _apply_template(messages, tokenizer)
            spans = _prefix_spans(messages, text, tokenizer)
    except _template_errors() as failure:
        raise UserError("template_refused", row=index + 1, reason=str(failure)[:200], where={"row": index + 1}) from failure
    answers = [message for message in messages if message["role"] == "assistant"]
    taught = [span for span, message in zip(spans, answers, strict=True) if message.get("weight", 1) != 0]
    return text, spans, taught


def _template_errors() -> tuple[type[Exception], ...]:
    from jinja2 import TemplateError

    return (TemplateError, _UnmatchedAnswer, TypeError, KeyError)


class _UnmatchedAnswer(Exception):
    """The text of an answer was not found in what the template made of the chat."""


def _apply_template(messages: Sequence[Mapping[str, Any]], tokenizer: Any, *, prompt: bool = False) -> str:
    plain = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    return str(tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=prompt))


def _prefix_spans(messages: Sequence[Mapping[str, Any]], text: str, tokenizer: Any) -> list[Span]:
    """The span of each answer with its end-of-turn token, by rendering the chat up to it and with it.

    Where a template does not extend its own prefix (some drop the reasoning of earlier turns, some cannot render a chat that starts
    with an answer), the answer's own words are looked up in the text.
    """
    spans: list[Span] = []
    cursor = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _apply_template(messages[:index], tokenizer, prompt=True) if index else ""
        upto = _apply_template(messages[: index + 1], tokenizer) if index + 1 < len(messages) else text
        if index and text.startswith(upto) and upto.startswith(before) and len(before) >= cursor:
            span = (len(before), len(before) + len(upto[len(before) :].rstrip()))
        else:
            span = _find(message["content"], text, cursor)
        spans.append(span)
        cursor = span[1]
    return spans


def _find(content: str, text: str, cursor: int) -> Span:
    words = content.strip()
    start = text.find(words, cursor)
    if start < 0:
        raise _UnmatchedAnswer(f"an answer does not appear in the rendered text: {words[:60]!r}")
    return start, start + len(words)


def _generation_spans(messages: Sequence[Mapping[str, Any]], tokenizer: Any) -> tuple[str, list[Span]]:
    """The spans that the template itself marks with `{% generation %}`."""
    from transformers.utils.chat_template_utils import render_jinja_template

    plain = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
    texts, spans = render_jinja_template(
        [plain], chat_template=tokenizer.chat_template, return_assistant_tokens_mask=True, **tokenizer.special_tokens_map
    )
    found = [(int(start), int(end)) for start, end in spans[0]]
    answers = sum(message["role"] == "assistant" for message in messages)
    if len(found) != answers:
        raise _UnmatchedAnswer(f"the template marks {len(found)} answers where the chat has {answers}")
    return str(texts[0]), found
