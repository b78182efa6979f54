"""Records as token ids with a mark on each token that is trained on.

Marks come from character spans of the rendered text and the tokenizer's offsets, never from token ids: in many models the padding token,
the end-of-turn token and the end-of-sequence token are one and the same. A record is tokenised whole, so that training sees what the
tokenizer makes of the finished text; the prompt of a generation is the same ids, up to the first one of the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jobs.data.tokens import LENGTH_CAP, Encoded, EncodedRows, TokenStore, cut_rows
from jobs.errors import UserError

__all__ = [
    "AnswerPlace",
    "Encoded",
    "EncodedRows",
    "Record",
    "encode_batches",
    "encode_records",
    "expected_answer",
    "place_of_answer",
    "prompt_ids_for_generation",
    "require_labels",
    "see_row",
]

Record = Mapping[str, Any]
Span = tuple[int, int]

_BATCH_ROWS = 512
_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class _Rendered:
    """A record as text: the spans of characters that are trained on, and those of every answer (weight 0 included)."""

    text: str
    spans: list[Span]
    answers: list[Span]
    special: bool  # whether the tokenizer adds its special tokens (a chat template has written them into the text)
    end: bool  # whether an end-of-sequence token follows


@dataclass(frozen=True)
class _Frame:
    """What a chat template puts around an answer: `header` (its generation prompt) before it, `tail` after it."""

    header: str
    tail: str


@dataclass(frozen=True)
class AnswerPlace:
    """The text of a record around its last answer (without the answer's outer white space): what any other answer would stand in.

    `after` ends the answer, as with a chat template's end-of-turn token. `special`: the tokenizer adds its special tokens; `end`: an
    end-of-sequence token follows.
    """

    before: str
    after: str
    special: bool
    end: bool


@dataclass(frozen=True)
class SeenRow:
    """A row with its text: token i stands for the characters `offsets[i]` ([start, end], int64 [tokens, 2]; none for a token that was
    added), and `encoded` has its id and whether it is trained on.
    """

    text: str
    offsets: NDArray[np.int64]
    encoded: Encoded


def see_row(record: Record, tokenizer: Any, loss_on: str = "completion") -> SeenRow:
    """One record as a training gets it, uncut, by the same code. Raises `UserError("template_refused")`."""
    (rendered,) = _rendered([record], tokenizer, loss_on)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    encoding = backend.encode(rendered.text, add_special_tokens=rendered.special)
    row = _row(rendered, encoding, np.int32(tokenizer.eos_token_id))
    offsets = np.zeros((len(row.ids), 2), dtype=np.int64)
    offsets[: len(encoding.offsets)] = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return SeenRow(rendered.text, offsets, row)


def encode_records(
    records: Iterable[Record],
    tokenizer: Any,
    *,
    loss_on: str = "completion",
    max_length: int | None = None,
    length_limit: int = LENGTH_CAP,
    progress: Callable[[int], None] | None = None,
) -> EncodedRows:
    """Encodes records in memory and cuts them as `cut_rows` says. `progress` gets the number of records done.

    Raises `UserError("template_refused")`.
    """
    rows: list[Encoded] = []
    for batch in encode_batches(records, tokenizer, loss_on):
        rows += batch
        if progress:
            progress(len(rows))
    return cut_rows(TokenStore.of(rows), max_length=max_length, length_limit=length_limit)


def encode_batches(records: Iterable[Record], tokenizer: Any, loss_on: str = "completion") -> Iterator[list[Encoded]]:
    """Every record as a row, uncut and in order, some hundred at a time. Raises `UserError("template_refused")`.

    A batch is tokenised in a thread (the tokenizer's own threads work without Python) while the next one is read and rendered.
    """
    stream = _rendered(records, tokenizer, loss_on)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    end = np.int32(tokenizer.eos_token_id)
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as pool:
        pending: Future[list[Encoded]] | None = None
        while batch := list(islice(stream, _BATCH_ROWS)):
            coming = pool.submit(_tokenise, batch, backend, end)
            if pending:
                yield pending.result()
            pending = coming
        if pending:
            yield pending.result()


def require_labels(encoded: EncodedRows) -> None:
    """Raises `UserError("nothing_to_learn")` where no row is left."""
    if not encoded.rows:
        raise UserError("nothing_to_learn", max_length=encoded.max_length)


def prompt_ids_for_generation(record: Record, tokenizer: Any) -> list[int] | None:
    """The ids before the last answer of a record, generation prompt included; None for plain text and chats without an answer."""
    record = _up_to_last_answer(record)
    if expected_answer(record) is None:
        return None
    rendered = _render(record, tokenizer, "completion", 0)
    encoding = tokenizer([rendered.text], add_special_tokens=rendered.special, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"][0], np.asarray(encoding["offset_mapping"][0]).reshape(-1, 2)
    answer = np.flatnonzero(_overlap(offsets, [rendered.answers[-1]]))
    return list(ids[: answer[0]]) if len(answer) else list(ids)


def place_of_answer(record: Record, tokenizer: Any) -> AnswerPlace | None:
    """Where the last answer of a record stands; None for plain text, chats without an answer, and templates that rewrite it."""
    record = _up_to_last_answer(record)
    expected = expected_answer(record)
    if expected is None:
        return None
    rendered = _render(record, tokenizer, "completion", 0)
    start, end = rendered.answers[-1]
    words = expected.strip()
    found = rendered.text.find(words, start, end)
    if found < 0:
        return None
    return AnswerPlace(rendered.text[:found], rendered.text[found + len(words) : end], rendered.special, rendered.end)


def _up_to_last_answer(record: Record) -> Record:
    messages = record.get("messages")
    if messages is None:
        return record
    last = _last_answer(messages)
    return {"messages": messages[: last + 1]} if last is not None else {"text": ""}


def expected_answer(record: Record) -> str | None:
    """The text of the last answer: the completion, or the last assistant message. None where there is none."""
    if "completion" in record:
        return str(record["completion"])
    messages = record.get("messages", ())
    last = _last_answer(messages)
    return None if last is None else str(messages[last]["content"])


def _last_answer(messages: Sequence[Mapping[str, Any]]) -> int | None:
    return next((index for index in reversed(range(len(messages))) if messages[index]["role"] == "assistant"), None)


def _tokenise(batch: Sequence[_Rendered], backend: Any, end: np.int32) -> list[Encoded]:
    """Rows of rendered records; `backend` is the `tokenizers.Tokenizer`, `end` the id of the end-of-sequence token."""
    encodings: list[Any] = [None] * len(batch)
    for special in (True, False):
        places = [place for place, rendered in enumerate(batch) if rendered.special is special]
        texts = [batch[place].text for place in places]
        for place, encoding in zip(places, backend.encode_batch(texts, add_special_tokens=special), strict=True):
            encodings[place] = encoding
    return [_row(rendered, encoding, end) for rendered, encoding in zip(batch, encodings, strict=True)]


def _row(rendered: _Rendered, encoding: Any, end: np.int32) -> Encoded:
    ids = np.array(encoding.ids, dtype=np.int32)
    trained = _overlap(np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2), rendered.spans)
    # A tokenizer without such a token (an encoder's, looked at by `jobs.data.seen`) has a negative id for it.
    if rendered.end and end >= 0 and (len(ids) == 0 or ids[-1] != end):
        ids = np.append(ids, end)
        trained = np.append(trained, bool(rendered.spans))
    trained[:1] = False
    return Encoded(ids, trained)


def _overlap(offsets: NDArray[np.int64], spans: Sequence[Span]) -> NDArray[np.bool_]:
    """Bool [tokens]: which tokens hold a character of a span. Special tokens that stand for no character hold none."""
    trained = np.zeros(len(offsets), dtype=np.bool_)
    starts, ends = offsets[:, 0], offsets[:, 1]
    for first, last in spans:
        trained |= (starts < last) & (ends > first) & (ends > starts)
    return trained


def _rendered(records: Iterable[Record], tokenizer: Any, loss_on: str) -> Iterator[_Rendered]:
    """The records as text; what frames an answer is found out once."""
    frame, looked = None, False
    for index, record in enumerate(records):
        if not looked and "messages" in record:
            frame, looked = _frame_of(tokenizer), True
        yield _render(record, tokenizer, loss_on, index, frame)


def _render(record: Record, tokenizer: Any, loss_on: str, index: int, frame: _Frame | None = None) -> _Rendered:
    everything = loss_on == "all"
    if "messages" in record:
        text, answers, taught = _render_chat(record["messages"], tokenizer, index, frame)
        return _Rendered(text, [(0, len(text))] if everything else taught, answers, special=False, end=False)
    if "completion" in record:
        prompt, text = record["prompt"], record["prompt"] + record["completion"]
        answer = (len(prompt), len(text))
        return _Rendered(text, [(0, len(text)) if everything else answer], [answer], special=True, end=True)
    text = record["text"]
    return _Rendered(text, [(0, len(text))], [], special=True, end=True)


def _render_chat(
    messages: Sequence[Mapping[str, Any]], tokenizer: Any, index: int, frame: _Frame | None
) -> tuple[str, list[Span], list[Span]]:
    """The chat's text, the spans of its answers, and of those among them that are trained on (`weight` not 0)."""
    try:
        if _GENERATION_BLOCK.search(tokenizer.chat_template):
            text, spans = _generation_spans(messages, tokenizer)
        else:
            text = _apply_template(messages, tokenizer)
            spans = (_framed_spans(messages, text, frame) if frame else None) or _prefix_spans(messages, text, tokenizer)
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


def _frame_of(tokenizer: Any) -> _Frame | None:
    """The frame of a template that adds an answer to the chat before it and changes nothing of that; None for any other."""
    question, answer = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    try:
        before = _apply_template([question], tokenizer)
        prompt = _apply_template([question], tokenizer, prompt=True)
        whole = _apply_template([question, answer], tokenizer)
    except _template_errors():
        return None
    header = prompt.removeprefix(before)
    if not header.strip() or prompt != before + header or not whole.startswith(f"{prompt}y"):
        return None
    return _Frame(header, whole[len(prompt) + 1 :])


def _framed_spans(messages: Sequence[Mapping[str, Any]], text: str, frame: _Frame) -> list[Span] | None:
    """The same spans as `_prefix_spans`, from the one text alone; None where it does not show them beyond doubt.

    The template's header must stand before every answer and nowhere else, and after it the answer's own words and the tail.
    """
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    if not answers or answers[0] == 0 or text.count(frame.header) != len(answers):
        return None
    spans: list[Span] = []
    cursor = 0
    for index in answers:
        start = text.find(frame.header, cursor) + len(frame.header)
        turn = messages[index]["content"] + frame.tail
        if not text.startswith(turn, start):
            return None
        spans.append((start, start + len(turn.rstrip())))
        cursor = start + len(turn)
    return spans


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
