"""A raw row and a mapping give a record. For writing it has exactly one of three shapes (those of other tasks: `jobs.data.task_rows`):

`{"messages": [{"role", "content", ("weight")}, ...], ("label"), ("choices")}`, `{"prompt", "completion", ("choices")}`, `{"text"}`.
Nothing is guessed: what cannot be said in these shapes without loss (tool calls, pictures) is refused with the reason.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

from jobs.data import names, task_rows
from jobs.data.cells import BadRowError, joined, label_in, text_in, whole
from jobs.data.formats import turns_of
from jobs.data.rows import Problem, Record, Row, kind_of, problem
from jobs.spec import Mapping

Message = dict[str, Any]
_TOOL_FIELDS = ("tool_calls", "function_call", "tool_call_id")
_TOOL_COLUMNS = ("tools", "functions")


def to_record(row: Row, mapping: Mapping) -> Record | Problem:
    """The record of a row, or what is wrong with the row."""
    try:
        return _CONVERTERS[mapping.format](row.value, mapping)
    except BadRowError as bad:
        return problem(bad.code, row, **bad.blanks)


def conversation(row: Row, column: str) -> list[Message] | Problem:
    """The turns in a column of a row, whoever speaks last, or what is wrong with them."""
    try:
        return _turns(row.value, column, "role", "content")
    except BadRowError as bad:
        return problem(bad.code, row, **bad.blanks)


def record_warnings(record: Record, row: Row) -> list[Problem]:
    """What is odd about a record but no reason to refuse it: turns in an order that some chat templates do not take."""
    turns = [role for message in record.get("messages", ()) if (role := message["role"]) != "system"]
    # As nearly all are: in turn, the user first.
    if turns[0::2].count("user") + turns[1::2].count("assistant") == len(turns):
        return []
    found: list[Problem] = []
    if turns[0] != "user":
        found.append(problem("chat_no_question", row, severity="warning"))
    if twice := next((first for first, second in pairwise(turns) if first == second), None):
        found.append(problem("chat_order", row, severity="warning", role=twice))
    return found


def _chat(system: str, turns: list[Message]) -> Record:
    """Turns with a system message before them where they lack one. Refuses what leaves nothing to learn."""
    if not any([turn["role"] == "assistant" and turn.get("weight", 1) for turn in turns]):  # noqa: C419 - a generator takes thrice as long
        raise BadRowError("chat_no_answer")
    if system.strip() and not any(turn["role"] == "system" for turn in turns):
        turns = [{"role": "system", "content": system}, *turns]
    return {"messages": turns}


def _messages(value: dict[str, Any], mapping: Mapping) -> Record:
    column = mapping.columns["messages"]
    _refuse_tools(value)
    record = _chat(mapping.instruction, _turns(value, column, "role", "content"))
    label = value.get(mapping.columns.get("label") or "")
    if isinstance(label, str) and label.strip():
        record["label"] = whole(label).strip()
    return record | _choices(value, mapping, record["messages"][-1])


def _choices(value: dict[str, Any], mapping: Mapping, answer: Message) -> Record:
    """The `choices` of a row that has them: different texts, the answer (the last message) among them, outer white space aside."""
    column = mapping.columns.get("choices") or ""
    cell = value.get(column)
    if cell is None or cell == "":
        return {}
    texts = turns_of(cell)
    if texts is None:
        raise BadRowError("choices_wrong", field=column, reason=f"holds {kind_of(cell)} instead of a list of texts")
    wrong = next((number for number, text in enumerate(texts, 1) if not isinstance(text, str) or not text.strip()), None)
    if wrong:
        raise BadRowError("choices_wrong", field=column, reason=f"holds {_said(texts[wrong - 1])} at place {wrong}, not a text")
    words = [whole(text).strip() for text in texts]
    if len(words) < 2 or len(set(words)) < len(words):
        found = f"the text '{_twice(words)[:40]}' twice" if len(words) > 1 else f"{len(words)} texts"
        raise BadRowError("choices_wrong", field=column, reason=f"holds {found}")
    if answer["role"] != "assistant" or answer["content"].strip() not in words:
        raise BadRowError("choices_wrong", field=column, reason=f"lacks the expected answer, '{answer['content'].strip()[:40]}'")
    return {"choices": words}


def _said(item: Any) -> str:
    return "an empty text" if isinstance(item, str) else kind_of(item)


def _twice(words: list[str]) -> str:
    return next(word for place, word in enumerate(words) if word in words[:place])


def _sharegpt(value: dict[str, Any], mapping: Mapping) -> Record:
    columns = mapping.columns
    _refuse_tools(value)
    turns = _turns(value, columns["conversations"], columns.get("from") or "from", columns.get("value") or "value")
    system = text_in(value, columns["system"], optional=True) if columns.get("system") else ""
    return _chat(system if system.strip() else mapping.instruction, turns)


def _refuse_tools(value: dict[str, Any]) -> None:
    for column in _TOOL_COLUMNS:
        cell = value.get(column)
        if cell and not (isinstance(cell, str) and cell.strip() in ("", "[]", "{}", "null")):
            raise BadRowError("chat_tools", found=f"'{column}'")


def _turns(value: dict[str, Any], column: str, role_key: str, text_key: str) -> list[Message]:
    cell = value.get(column)
    if cell is None:
        raise BadRowError("field_missing", field=column)
    turns = turns_of(cell)
    if turns is None:
        raise BadRowError("field_type", field=column, found=f"{kind_of(cell)} instead of a list of messages")
    if not turns:
        raise BadRowError("text_empty", field=column)
    return _plain_turns(turns, role_key, text_key) or [_turn(turn, number, role_key, text_key) for number, turn in enumerate(turns, 1)]


def _plain_turns(turns: list[Any], role_key: str, text_key: str) -> list[Message] | None:
    """The messages, where each turn is a known role and a text and no more, as most are; None where they must be looked at one by one."""
    messages: list[Message] = []
    try:
        for turn in turns:
            role, content = names.ROLES[turn[role_key]], turn[text_key]
            if len(turn) != 2 or not content or content.isspace():
                return None
            messages.append({"role": role, "content": content if content.isascii() and "\x00" not in content else whole(content)})
    except (LookupError, TypeError, AttributeError):
        # A turn that is no object, a role that is unknown or no text, a content that is no text.
        return None
    return messages


def _turn(turn: Any, number: int, role_key: str, text_key: str) -> Message:
    if not isinstance(turn, dict):
        raise BadRowError("chat_message", number=number, reason=f"is {kind_of(turn)}, not an object")
    for name in _TOOL_FIELDS:
        if turn.get(name):
            raise BadRowError("chat_tools", found=f"'{name}' in message {number}")
    role = turn.get(role_key)
    if not isinstance(role, str):
        raise BadRowError("chat_message", number=number, reason=f"has no '{role_key}'")
    if role.strip().lower() in names.TOOL_ROLES:
        raise BadRowError("chat_tools", found=f"role '{role[:40]}' in message {number}")
    known = names.ROLES.get(role.strip().lower())
    if known is None:
        raise BadRowError("chat_role", number=number, role=role[:40])
    message: Message = {"role": known, "content": _content(turn.get(text_key), number, text_key)}
    weight = turn.get("weight")
    if weight is not None and known == "assistant":
        if isinstance(weight, bool) or weight not in (0, 1):
            raise BadRowError("chat_message", number=number, reason=f"has the weight {str(weight)[:40]}; only 0 and 1 are known")
        message["weight"] = int(weight)
    if not message["content"].strip() and known != "system" and message.get("weight", 1):
        raise BadRowError("answer_empty" if known == "assistant" else "text_empty", field=f"message {number}")
    return message


def _content(content: Any, number: int, text_key: str) -> str:
    """The text of a message; OpenAI's list of parts is joined where all of them are text."""
    if isinstance(content, str):
        return whole(content)
    if not isinstance(content, list):
        reason = f"has no '{text_key}'" if content is None else f"has {kind_of(content)} as '{text_key}', not text"
        raise BadRowError("chat_message", number=number, reason=reason)
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            what = part.get("type") if isinstance(part, dict) else kind_of(part)
            raise BadRowError("chat_message", number=number, reason=f"holds a part that is not text ({str(what)[:40]})")
        texts.append(whole(part["text"]))
    return "".join(texts)


def _alpaca(value: dict[str, Any], mapping: Mapping) -> Record:
    columns = mapping.columns
    question = text_in(value, columns["instruction"])
    if columns.get("input"):
        question = joined(question, text_in(value, columns["input"], optional=True))
    system = text_in(value, columns["system"], optional=True) if columns.get("system") else ""
    answer = text_in(value, columns["output"], answer=True)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return _chat(system if system.strip() else mapping.instruction, turns)


def _prompt_completion(value: dict[str, Any], mapping: Mapping) -> Record:
    prompt, completion = mapping.columns["prompt"], mapping.columns["completion"]
    if isinstance(value.get(prompt), list) and isinstance(value.get(completion), list):
        # Conversational pairs: answers within the prompt are given, not learned.
        before = _turns(value, prompt, "role", "content")
        given = [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in before]
        record = _chat(mapping.instruction, given + _turns(value, completion, "role", "content"))
        return record | _choices(value, mapping, record["messages"][-1])
    question = text_in(value, prompt)
    # The text is taken as it stands: a blank at the start of the completion may be meant.
    instruction = f"{mapping.instruction}\n\n" if mapping.instruction.strip() else ""
    answer = text_in(value, completion, answer=True)
    choices = _choices(value, mapping, {"role": "assistant", "content": answer})
    return {"prompt": instruction + question, "completion": answer, **choices}


def _classification(value: dict[str, Any], mapping: Mapping) -> Record:
    columns = mapping.columns
    text = text_in(value, columns["text"])
    label = label_in(value, columns["label"])
    question = joined(mapping.instruction, text)
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": label}], "label": label}


def _plain_text(value: dict[str, Any], mapping: Mapping) -> Record:
    return {"text": text_in(value, mapping.columns["text"])}


_CONVERTERS = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt_completion": _prompt_completion,
    "classification": _classification,
    "text": _plain_text,
    **task_rows.CONVERTERS,
}


def parts(record: Record) -> list[dict[str, Any]]:
    """A record as what is shown of it: `role`, `content`, and whether it is `trained` on when the loss is on completions."""
    if (shown := task_rows.parts(record)) is not None:
        return shown
    if "messages" in record:
        return [
            {"role": turn["role"], "content": turn["content"], "trained": turn["role"] == "assistant" and bool(turn.get("weight", 1))}
            for turn in cast("list[Message]", record["messages"])
        ]
    if "text" in record:
        return [{"role": "text", "content": record["text"], "trained": True}]
    return [
        {"role": "prompt", "content": record["prompt"], "trained": False},
        {"role": "completion", "content": record["completion"], "trained": True},
    ]
