"""The grammar of the search box. A pure parser: it knows no database and no words, only the fields that it is given.

    query   = term*                                 terms are separated by spaces, and all of them must hold
    term    = ["-"] (field ":" value ("," value)*   any of the values
                   | field compare value
                   | value)                         a word of the run: its name, data, model, method, owner or tags
    compare = "<" | "<=" | ">" | ">=" | "="
    value   = word | '"' any text '"'               in quotation marks it may hold spaces, and means exactly that

What cannot be understood is left out and told (`Mistake`), with its place; the rest of the query holds. So a list can follow somebody
who is still typing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from difflib import get_close_matches
from enum import StrEnum
from typing import Literal, cast

Compare = Literal["<", "<=", ">", ">=", "="]


class Kind(StrEnum):
    """What a field's values are."""

    TEXT = "text"
    CHOICE = "choice"
    NUMBER = "number"
    BYTES = "bytes"
    SECONDS = "seconds"
    DATE = "date"


@dataclass(frozen=True)
class Field:
    """One field: its name, what it holds, and for a choice its values by what people may write (in small letters)."""

    name: str
    kind: Kind
    choices: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Text:
    """A word; `exact` where it stood in quotation marks."""

    text: str
    exact: bool = False


@dataclass(frozen=True)
class Span:
    """A day or a minute: from `start` to before `end`, in UTC."""

    start: datetime
    end: datetime


# A number is a plain one, bytes, or seconds, as the field has it.
Value = Text | Span | float


@dataclass(frozen=True)
class Term:
    """One condition. `field` is empty for a bare word; `values` are alternatives, one alone unless `compare` is `=`."""

    field: str
    compare: Compare
    values: tuple[Value, ...]
    negated: bool
    start: int
    end: int


@dataclass(frozen=True)
class Mistake:
    """What was not understood: a code, the part of the query from `start` to `end`, the words that belong to the message, and the
    nearest known word, empty where none is near.

    Codes: `unknown_field unknown_value not_number not_bytes not_seconds not_date missing_value unclosed_quote not_comparable one_value`.
    """

    code: str
    start: int
    end: int
    field: str = ""
    value: str = ""
    near: str = ""


@dataclass(frozen=True)
class Query:
    """What was understood, and what was not."""

    terms: tuple[Term, ...]
    mistakes: tuple[Mistake, ...]


_HEAD = re.compile(r"([^\W\d]\w*)(?:(:)|\s*(<=|>=|<|>|=)\s*)")
_WORD = re.compile(r'[^\s,"]+')
_REST = re.compile(r"\S*")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_SIZES = {"": 1, "b": 1, **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", 1)}}
_SIZES |= {f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", 1)} | {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_TIMES = {"": 1, "s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
# Decimals, so that 70% is what 0.7 is.
_UNITS: dict[Kind, Mapping[str, Decimal | int]] = {Kind.NUMBER: {"": 1, "%": Decimal("0.01")}, Kind.BYTES: _SIZES, Kind.SECONDS: _TIMES}
_DATES = (("%Y-%m-%d", timedelta(days=1)), ("%Y-%m-%dT%H:%M", timedelta(minutes=1)))


def parse(text: str, fields: Mapping[str, Field]) -> Query:
    """The query that `text` is. `fields` maps every name that people may write, in small letters, to its field. Raises nothing."""
    return _Parser(text, fields).parse()


class _Wrong(Exception):
    """A mistake, on its way to the list of them."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(mistake.code)
        self.mistake = mistake


class _Parser:
    def __init__(self, text: str, fields: Mapping[str, Field]) -> None:
        self.text, self.fields, self.at = text, fields, 0

    def parse(self) -> Query:
        terms, mistakes = [], []
        while self._skip_space():
            start = self.at
            try:
                terms.append(self._term())
            except _Wrong as wrong:
                mistakes.append(wrong.mistake)
                self._to_next_term(start, wrong.mistake.end)
        return Query(tuple(terms), tuple(mistakes))

    def _skip_space(self) -> bool:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        return self.at < len(self.text)

    def _to_next_term(self, start: int, mistaken: int) -> None:
        """After a mistake: to the space behind it. Never stays where it is."""
        rest = _REST.match(self.text, max(self.at, mistaken, start + 1))
        self.at = rest.end() if rest else len(self.text)

    def _term(self) -> Term:
        start = self.at
        negated = self.text[self.at] == "-" and self.text[self.at + 1 : self.at + 2].strip() != ""
        self.at += negated
        head = _HEAD.match(self.text, self.at)
        if head is None:
            value: Value = self._text("") if self.text[self.at] == '"' else Text(self._take(_REST))
            return Term("", "=", (value,), negated, start, self.at)
        self.at = head.end()
        field = self._field(head)
        values = self._values(field, compares=head[3] is not None)
        return Term(field.name, cast(Compare, head[3] or "="), values, negated, start, self.at)

    def _field(self, head: re.Match[str]) -> Field:
        name = head[1]
        field = self.fields.get(name.lower())
        if field is None:
            raise _Wrong(Mistake("unknown_field", head.start(1), head.end(1), field=name, near=_near(name, self.fields)))
        if head[3] not in (None, "=") and field.kind in (Kind.TEXT, Kind.CHOICE):
            raise _Wrong(Mistake("not_comparable", head.start(), head.end(), field=name, value=head[3]))
        return field

    def _values(self, field: Field, *, compares: bool) -> tuple[Value, ...]:
        values = [self._value(field)]
        while self.text[self.at : self.at + 1] == ",":
            if compares:
                raise _Wrong(Mistake("one_value", self.at, self.at + 1, field=field.name))
            self.at += 1
            values.append(self._value(field))
        return tuple(values)

    def _value(self, field: Field) -> Value:
        start = self.at
        text = self._text(field.name)
        match field.kind:
            case Kind.TEXT:
                return text
            case Kind.CHOICE:
                return self._choice(field, text, start)
            case Kind.DATE:
                return self._date(field, text.text, start)
        return self._number(field, text.text, start)

    def _text(self, field: str) -> Text:
        """The value here, with or without quotation marks."""
        if self.text[self.at : self.at + 1] != '"':
            start, word = self.at, self._take(_WORD)
            if not word:
                raise _Wrong(Mistake("missing_value", start, start, field=field))
            return Text(word)
        close = self.text.find('"', self.at + 1)
        if close < 0:
            raise _Wrong(Mistake("unclosed_quote", self.at, len(self.text), field=field))
        if close == self.at + 1:
            raise _Wrong(Mistake("missing_value", self.at, close + 1, field=field))
        quoted, self.at = self.text[self.at + 1 : close], close + 1
        return Text(quoted, exact=True)

    def _take(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        if found is None:
            return ""
        self.at = found.end()
        return found[0]

    def _choice(self, field: Field, text: Text, start: int) -> Text:
        choices = field.choices or {}
        if text.text.lower() not in choices:
            near = _near(text.text, choices)
            raise _Wrong(Mistake("unknown_value", start, self.at, field=field.name, value=text.text, near=near))
        return Text(choices[text.text.lower()], exact=True)

    def _number(self, field: Field, text: str, start: int) -> float:
        units = _UNITS[field.kind]
        found = re.fullmatch(rf"({_NUMBER})\s*([A-Za-z%]*)", text)
        unit = units.get(found[2].lower()) if found else None
        number = float(Decimal(found[1]) * unit) if found and unit is not None else math.nan
        if not math.isfinite(number):
            raise _Wrong(Mistake(f"not_{field.kind}", start, self.at, field=field.name, value=text))
        return number

    def _date(self, field: Field, text: str, start: int) -> Span:
        for form, length in _DATES:
            try:
                begin = datetime.strptime(text, form).replace(tzinfo=UTC)
                return Span(begin, begin + length)
            except (ValueError, OverflowError):
                continue
        raise _Wrong(Mistake("not_date", start, self.at, field=field.name, value=text))


def _near(word: str, known: Mapping[str, object]) -> str:
    return next(iter(get_close_matches(word.lower(), known, n=1)), "")
