"""The fast parser says nothing that the exact one does not say; what is unusual it leaves to that one."""

from __future__ import annotations

import json
import random
from typing import Any, NoReturn

import pytest

from jobs.data import fast_json
from jobs.data.json_rows import parse_row
from jobs.data.rows import Limits, Problem, Row

SEEDS = (
    '{"a": [1, 2.5, -3e2, true, null, "x\\n\\u00e9\\ud83d\\ude00"], "b": {"c": "d", "é": ""}}',
    '{"k":0.1e5,"n":1234567890123456789012}',
    ' {"a":"\\\\\\"","b":{}}\t',
)
PIECES = [*'{}[]:,"\\/u0123456789abcdefE+-. \t\r\n\x0c\x00\x1f\x7f\u2028é😀', "NaN", "\ufeff", "\ud800", '"a":1,', "\\u0022", "\\u0000"]


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError
    return dict(pairs)


def test_what_is_taken_is_what_pythons_parser_reads_with_no_key_twice() -> None:
    dice = random.Random(5)  # noqa: S311 - the same texts every time
    taken = 0
    for _ in range(30_000):
        text = list(dice.choice(SEEDS))
        for _change in range(dice.randint(0, 3)):
            place = dice.randrange(len(text))
            text[place : place + dice.randint(0, 1)] = dice.choice(PIECES)
        value = fast_json.decode("".join(text))
        if value is not None:
            taken += 1
            assert repr(value) == repr(json.loads("".join(text), parse_constant=_refuse, object_pairs_hook=_unique)), "".join(text)
    assert taken > 5_000


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"a": 1, "a": 2}', "json_duplicate_key"),
        ('{"a": {"b": "x", "b": "\\u0022y"}}', "json_duplicate_key"),
        ('{"a": "\\u0000"}', "text_broken"),
        ('{"a": "\\ud800"}', "text_broken"),
        ('{"a": NaN}', "json_number"),
        ('{"a": 1e999}', "json_number"),
        ('{"a": ' + "1" * 301 + "}", "json_number"),
        ('{"a": ' + "[" * 64 + "]" * 64 + "}", "json_too_deep"),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}", "json_too_deep"),
        ("[1]", "json_not_object"),
        ('{"a": 1,}', "json_invalid"),
    ],
)
def test_what_we_refuse_is_refused_by_its_own_name(line: str, code: str) -> None:
    assert fast_json.decode(line) is None or code == "json_too_deep"
    found = parse_row(line, 7, Limits())
    assert isinstance(found, Problem)
    assert (found.code, found.line) == (code, 7)


@pytest.mark.parametrize("line", ['{"a": "\\u0022\\\\u0000"}', '{"a": ' + "1" * 300 + "}", '{"a": "' + "1" * 400 + '"}', '{"a": "\\\\"}'])
def test_what_only_looks_unusual_is_read_all_the_same(line: str) -> None:
    assert parse_row(line, 1, Limits()) == Row(1, json.loads(line))


def test_what_is_written_is_what_pythons_encoder_writes() -> None:
    value = {"a": '\x7f\x1f\u2028/"\\\b\f\n\r\té😀', "b": [0, -1, True, None, 0.5], "ключ": {}}
    assert fast_json.encode(value) == json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    with pytest.raises(UnicodeEncodeError):
        fast_json.encode({"a": "\ud800"})
