"""The grammar of the search box: what is understood, what is told of the rest, and that nothing that anybody types breaks it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.runs.lists.fields import EXPLAINED, FIELDS, values_of, words_of
from webapp.runs.lists.grammar import Field, Kind, Mistake, Span, Term, Text, parse

KNOWN = {
    "status": Field("status", Kind.CHOICE, {"failed": "failed", "done": "succeeded"}),
    "tag": Field("tag", Kind.TEXT),
    "loss": Field("loss", Kind.NUMBER),
    "memory": Field("memory", Kind.BYTES),
    "time": Field("time", Kind.SECONDS),
    "created": Field("created", Kind.DATE),
}


def only(text: str) -> Term:
    query = parse(text, KNOWN)
    assert query.mistakes == ()
    (term,) = query.terms
    return term


@pytest.mark.parametrize(
    ("text", "field", "compare", "values", "negated"),
    [
        ("night", "", "=", (Text("night"),), False),
        ("-night", "", "=", (Text("night"),), True),
        ('"night run"', "", "=", (Text("night run", exact=True),), False),
        ("-", "", "=", (Text("-"),), False),
        ("a-b", "", "=", (Text("a-b"),), False),
        ("status:failed", "status", "=", (Text("failed", exact=True),), False),
        ("STATUS:Done", "status", "=", (Text("succeeded", exact=True),), False),
        ("-tag:prod,best", "tag", "=", (Text("prod"), Text("best")), True),
        ('tag:"two words",b', "tag", "=", (Text("two words", exact=True), Text("b")), False),
        ("tag=prod", "tag", "=", (Text("prod"),), False),
        ("loss<1.5", "loss", "<", (1.5,), False),
        ("loss < 1.5", "loss", "<", (1.5,), False),
        ("loss>=1e-3", "loss", ">=", (0.001,), False),
        ("loss>=70%", "loss", ">=", (0.7,), False),
        ("loss:.5", "loss", "=", (0.5,), False),
        ("memory<4GB", "memory", "<", (4e9,), False),
        ("memory<=2GiB", "memory", "<=", (2.0 * 2**30,), False),
        ("memory>500", "memory", ">", (500.0,), False),
        ("time>10m", "time", ">", (600.0,), False),
        ('time>"1.5 h"', "time", ">", (5400.0,), False),
        ("created>2026-11-01", "created", ">", (Span(datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)),), False),
        (
            "created=2026-11-01T14:30", "created", "=",
            (Span(datetime(2026, 11, 1, 14, 30, tzinfo=UTC), datetime(2026, 11, 1, 14, 31, tzinfo=UTC)),), False,
        ),
    ],
)  # fmt: skip
def test_what_a_term_means(text: str, field: str, compare: str, values: tuple[Any, ...], negated: bool) -> None:
    term = only(text)
    assert (term.field, term.compare, term.values, term.negated) == (field, compare, values, negated)
    assert (term.start, term.end) == (0, len(text))


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("stats:failed", Mistake("unknown_field", 0, 5, "stats", near="status")),
        ("-qqq:1", Mistake("unknown_field", 1, 4, "qqq")),
        ("status:faild", Mistake("unknown_value", 7, 12, "status", "faild", "failed")),
        ("loss<", Mistake("missing_value", 5, 5, "loss")),
        ("tag:a,", Mistake("missing_value", 6, 6, "tag")),
        ('tag:""', Mistake("missing_value", 4, 6, "tag")),
        ("loss<low", Mistake("not_number", 5, 8, "loss", "low")),
        ("loss<1.5x", Mistake("not_number", 5, 9, "loss", "1.5x")),
        ("loss<1e999", Mistake("not_number", 5, 10, "loss", "1e999")),
        ("memory<4XB", Mistake("not_bytes", 7, 10, "memory", "4XB")),
        ("time>soon", Mistake("not_seconds", 5, 9, "time", "soon")),
        ("created>yesterday", Mistake("not_date", 8, 17, "created", "yesterday")),
        ("created>2026-02-30", Mistake("not_date", 8, 18, "created", "2026-02-30")),
        ("created>9999-12-31", Mistake("not_date", 8, 18, "created", "9999-12-31")),
        ("status<failed", Mistake("not_comparable", 0, 7, "status", "<")),
        ("loss<1,2", Mistake("one_value", 6, 7, "loss")),
        ('tag:"open', Mistake("unclosed_quote", 4, 9, "tag")),
        ('"open', Mistake("unclosed_quote", 0, 5, "")),
    ],
)
def test_what_is_not_understood_is_told_with_its_place(text: str, mistake: Mistake) -> None:
    assert parse(text, KNOWN).mistakes == (mistake,)
    assert parse(text, KNOWN).terms == ()


def test_a_mistake_takes_its_own_term_alone() -> None:
    query = parse("night stats:x status:failed loss<1,2 tag:b", KNOWN)
    assert [(term.field, term.values) for term in query.terms] == [
        ("", (Text("night"),)), ("status", (Text("failed", exact=True),)), ("tag", (Text("b"),)),
    ]  # fmt: skip
    assert [mistake.code for mistake in query.mistakes] == ["unknown_field", "one_value"]


@given(st.text(alphabet=st.sampled_from('abs:<>=-," \t%1.5GBmlot\u3000e\u00e4'), max_size=60) | st.text(max_size=60))
def test_anything_can_be_typed(text: str) -> None:
    query = parse(text, FIELDS)
    ends = 0
    for term in query.terms:
        assert ends <= term.start < term.end <= len(text)
        ends = term.end
    for mistake in query.mistakes:
        assert 0 <= mistake.start <= mistake.end <= len(text)
        assert words_of(mistake)
    assert bool(query.terms or query.mistakes) == bool(text.strip())


WORDS = st.text(alphabet=st.characters(exclude_characters='"\0', exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(st.lists(st.tuples(st.booleans(), st.lists(WORDS, min_size=1, max_size=3)), max_size=4))
def test_what_is_written_in_quotation_marks_is_read_as_it_is(written: list[tuple[bool, list[str]]]) -> None:
    text = " ".join("-" * negated + "tag:" + ",".join(f'"{word}"' for word in words) for negated, words in written)
    terms = parse(text, KNOWN).terms
    assert [(term.negated, [value.text for value in term.values if isinstance(value, Text)]) for term in terms] == written


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["<", "<=", ">", ">=", "="]))
def test_every_number_is_read_back(number: float, compare: str) -> None:
    term = only(f"loss{compare}{number!r}")
    assert (term.compare, term.values) == (compare, (number,))


def test_every_example_of_the_help_is_understood() -> None:
    for each in EXPLAINED:
        query = parse(each.example, FIELDS)
        assert query.mistakes == ()
        assert query.terms[0].field == each.field.name


def test_a_value_that_is_none_is_told_with_those_that_are() -> None:
    (mistake,) = parse("status:faild", FIELDS).mistakes
    assert words_of(mistake) == "“status” is never “faild”. Did you mean “failed”?"
    assert {"failed", "running", "active", "done"} <= set(values_of(mistake))
    (mistake,) = parse("method:lorra", FIELDS).mistakes
    assert words_of(mistake) == "“method” is never “lorra”. Did you mean “lora”?"
    assert values_of(mistake) == [], "there are too many to read"
