"""JSON as rows: one object a line, one list of objects, or an object that holds such a list. Never whole in memory.

Stricter than `json.loads`, which takes NaN, infinite numbers, keys that stand twice and half characters without a word.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from jobs.data import fast_json
from jobs.data.rows import Limits, Problem, Row, Unit, kind_of, place, problem
from jobs.data.text import TextFacts, broken_text, read_lines
from jobs.errors import UserError

# Keys under which an object of a whole file holds its rows.
HOLDERS = ("data", "rows", "records", "examples", "items", "instances", "train")
_BLANK = re.compile(r"[ \t\r\n]*")
# An object up to its first list; before it, members that are a text, a number or a word.
_HOLDER = re.compile(r'\{\s*(?:"[^"\\]{0,80}"\s*:\s*(?:"(?:[^"\\]|\\.){0,2000}"|[-\w.]{1,80})\s*,\s*){0,20}"(\w{1,40})"\s*:\s*(?=\[)')
_STEP_CHARACTERS = 65_536


class _Refused(ValueError):
    """Valid for Python's parser, not for us. `args`: code and blanks."""

    def __init__(self, code: str, **blanks: Any) -> None:
        super().__init__(code)
        self.code, self.blanks = code, blanks


def _constant(name: str) -> NoReturn:
    raise _Refused("json_number", found=name)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("json_number", found=text[:40])
    return value


def _integer(text: str) -> int:
    if len(text) > fast_json.LONGEST_INTEGER:
        raise _Refused("json_number", found=f"a number of {len(text)} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    body = dict(pairs)
    if len(body) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _Refused("json_duplicate_key", key=next(key for key in keys if keys.count(key) > 1)[:80])
    return body


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_float, parse_int=_integer, object_pairs_hook=_object)
# Finds the end of a value that was refused.
_LENIENT = json.JSONDecoder(parse_int=str)


def parse_row(text: str, number: int, limits: Limits) -> Row | Problem:
    """One line as a row."""
    fast = fast_json.decode(text)
    if fast is not None and not _may_be_deep(text, limits):
        return Row(number, fast)
    at = place(number)
    try:
        value = _DECODER.decode(text)
    except _Refused as refused:
        return problem(refused.code, at, **refused.blanks)
    except json.JSONDecodeError as failure:
        return problem("json_invalid", at, column=failure.colno, reason=_reason(failure, text))
    except RecursionError:
        return problem("json_too_deep", at, limit=limits.json_depth)
    return check_row(value, text, at, limits)


def check_row(value: Any, source: str, at: Row, limits: Limits) -> Row | Problem:
    """The checks that the parser does not make: an object, not too deep, whole characters. `source` is the row's own text."""
    if not isinstance(value, dict):
        return problem("json_not_object", at, found=kind_of(value))
    if _may_be_deep(source, limits) and _depth(value) > limits.json_depth:
        return problem("json_too_deep", at, limit=limits.json_depth)
    # Only an escape can smuggle in what the text itself cannot hold.
    if "\\u" in source:
        for text in _strings(value):
            if "\x00" in text:
                return problem("text_broken", at, what="a text holds \\u0000, a zero character, which cannot be stored")
            if not text.isascii() and _half(text):
                return problem("text_broken", at, what="a text holds half of a character (a lone \\ud8.. or \\udc..)")
    return Row(at.line, value, at.unit)


def _may_be_deep(source: str, limits: Limits) -> bool:
    return source.count("{") + source.count("[") > limits.json_depth


def _half(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _depth(value: Any) -> int:
    deepest, stack = 0, [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if isinstance(item, dict | list):
            deepest = max(deepest, depth)
            stack += [(child, depth + 1) for child in (item.values() if isinstance(item, dict) else item)]
    return deepest


def _strings(value: Any) -> Iterator[str]:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack += [*item.keys(), *item.values()]
        elif isinstance(item, list):
            stack += item


def _reason(failure: json.JSONDecodeError, text: str) -> str:
    rest = text[failure.pos :]
    if not rest.strip():
        return "it ends in the middle of the row"
    if failure.msg.startswith("Unterminated string"):
        return "a text that begins here is never closed"
    if rest.startswith("'"):
        return "text must stand in double quotes"
    if failure.msg == "Extra data":
        return "more text after the end of the row; each line must hold one object"
    return failure.msg[0].lower() + failure.msg[1:]


def read_jsonl(file: io.TextIOWrapper, facts: TextFacts, limits: Limits) -> Iterator[Row | Problem]:
    """One object a line; blank lines are passed over."""
    for number, line in read_lines(file, facts, limits):
        if isinstance(line, Problem):
            yield line
        elif not line.isspace():
            yield parse_row(line.rstrip("\r\n"), number, limits)


def holder(text: str, at: int = 0) -> re.Match[str] | None:
    """Matches an object that holds the list of rows, from its { to that list; None where `text` at `at` begins none."""
    found = _HOLDER.match(text, at)
    return found if found and found[1] in HOLDERS else None


class JsonStream:
    """Rows of a JSON document that spans lines. Holds one row and a step of text at a time; `holder` is the key of the list, if any.

    A syntax error ends the file: where the next row begins cannot be told. It is raised as `UserError` with line and column.
    """

    def __init__(self, file: io.TextIOWrapper, path: str, limits: Limits) -> None:
        self._file, self._path, self._limits = file, path, limits
        self._text = ""
        self._at = 0
        self._line = 1
        self._line_start = 0
        self._ended = False

    def rows(self) -> Iterator[Row | Problem]:
        """The rows, numbered from 1: the items of the list, or the objects one after another."""
        number = 0
        while self._peek():
            if self._peek() == "[":
                for value, source in self._items():
                    number += 1
                    yield self._row(value, source, number)
            elif self._peek() == "{" and self._enter_holder():
                for value, source in self._items():
                    number += 1
                    yield self._row(value, source, number)
                self._leave_holder()
            else:
                value, source = self._value()
                number += 1
                yield self._row(value, source, number)
            # Objects of a list that lacks its brackets are often followed by commas.
            if self._peek() == ",":
                self._skip(1)

    def _row(self, value: Any, source: str, number: int) -> Row | Problem:
        unit: Unit = "row"
        at = Row(number, {}, unit)
        if isinstance(value, _Refused):
            return problem(value.code, at, **value.blanks)
        fault = broken_text(source)
        if fault is not None:
            return problem("text_broken", at, what=f"it holds {fault[1]}")
        return check_row(value, source, at, self._limits)

    def _items(self) -> Iterator[tuple[Any, str]]:
        self._skip(1)
        if self._peek() == "]":
            self._skip(1)
            return
        while True:
            yield self._value()
            mark = self._peek()
            if mark not in (",", "]"):
                self._fail("the file ends in the middle of the list" if not mark else "a comma or ] was expected here")
            self._skip(1)
            if mark == "]":
                return
            if self._peek() == "]":
                self._fail("a comma before the closing ]")

    def _enter_holder(self) -> bool:
        """Whether the object here holds the list of rows; if so, stands at that list. Other members before it are passed over."""
        self._more()
        found = holder(self._text, self._at)
        if found is None:
            return False
        self._skip(len(found[0]))
        return True

    def _leave_holder(self) -> None:
        while self._peek() == ",":
            self._skip(1)
            self._value()
            if self._peek() == ":":
                self._skip(1)
                self._value()
        if self._peek() != "}":
            self._fail("the closing } was expected here")
        self._skip(1)

    def _value(self) -> tuple[Any, str]:
        """The value that begins here, and its text. What we refuse comes back as the exception, since the stream can go on after it."""
        self._peek()
        refusal: _Refused | None = None
        while True:
            try:
                value, end = (_LENIENT if refusal else _DECODER).raw_decode(self._text, self._at)
            except _Refused as refused:
                refusal = refused
                continue
            except RecursionError:
                self._fail(f"brackets are nested more than {self._limits.json_depth} deep")
            except json.JSONDecodeError as failure:
                if self._ended or not self._may_go_on(failure):
                    self._fail(_reason(failure, self._text), failure.pos)
                self._more()
                continue
            # A number that touches the end of the text may go on in the next step.
            if end == len(self._text) and not self._ended:
                self._more()
                continue
            return refusal or value, self._take(end)

    def _may_go_on(self, failure: json.JSONDecodeError) -> bool:
        if len(self._text) - self._at > self._limits.line_characters:
            raise UserError(
                "line_too_long",
                place=f"The row that begins on line {self._line_at(self._at)[0]}",
                limit=f"{self._limits.line_characters:,} characters",
                where=self._where(self._at),
            )
        return failure.msg.startswith("Unterminated string") or failure.pos >= len(self._text) - 16

    def _take(self, end: int) -> str:
        source = self._text[self._at : end]
        self._advance(end)
        return source

    def _skip(self, count: int) -> None:
        self._advance(self._at + count)

    def _advance(self, end: int) -> None:
        last = self._text.rfind("\n", self._at, end)
        if last >= 0:
            self._line += self._text.count("\n", self._at, end)
            self._line_start = last + 1
        self._at = end
        if self._at > _STEP_CHARACTERS and self._at * 2 > len(self._text):
            self._text = self._text[self._at :]
            self._line_start -= self._at
            self._at = 0

    def _peek(self) -> str:
        """The next character that is not blank, or "" at the end; stands at it."""
        while True:
            blank = _BLANK.match(self._text, self._at)
            self._advance(blank.end() if blank else self._at)
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._more()

    def _more(self) -> None:
        # Reading as much again as is held keeps the number of attempts at a long row small.
        piece = self._file.read(max(_STEP_CHARACTERS, len(self._text) - self._at))
        self._ended = not piece
        self._text += piece

    def _line_at(self, position: int) -> tuple[int, int]:
        lines = self._text.count("\n", self._at, position)
        start = self._text.rfind("\n", self._at, position) + 1 if lines else self._line_start
        return self._line + lines, position - start + 1

    def _where(self, position: int) -> dict[str, Any]:
        line, column = self._line_at(position)
        return {"file": self._path, "line": line, "column": column}

    def _fail(self, reason: str, position: int | None = None) -> NoReturn:
        where = self._where(self._at if position is None else position)
        raise UserError("json_invalid", place=f"Line {where['line']}", column=where["column"], reason=reason, where=where)
