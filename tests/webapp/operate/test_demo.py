"""The demonstration's own judgement: what it sends from a page's form, and when it says that a promise was broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.events import EventWriter
from webapp.operate.demo.forms import form_values
from webapp.operate.demo.visitor import Followed
from webapp.operate.management.commands.demo import accuracy, delivery, shortcomings

PAGE = """
<form action="/search"><input name="q" value="x"></form>
<form method="post"><input type="hidden" name="token" value="a&amp;b"><input name="name">
<input type="checkbox" name="skip"><input type="checkbox" name="keep" checked>
<input type="radio" name="method" value="full"><input type="radio" name="method" value="lora" checked>
<input type="file" name="file"><button name="go" value="1">Go</button><input type="submit" name="send" value="Send">
<select name="first"><option value="1">one</option><option value="2">two</option></select>
<select name="marked"><option value="1">one</option><option value="2" selected>two</option></select>
<textarea name="text">
two
lines</textarea></form>
"""


def test_a_form_is_sent_as_a_browser_sends_it() -> None:
    assert form_values(PAGE, "token") == {
        "token": "a&b",
        "name": "",
        "keep": "on",
        "method": "lora",
        "first": "1",
        "marked": "2",
        "text": "two\nlines",
    }
    assert form_values(PAGE, "q") == {"q": "x"}
    with pytest.raises(LookupError, match="no form with a field 'nothing'"):
        form_values(PAGE, "nothing")


def received(*ids: tuple[int, int]) -> Followed:
    return Followed([{"attempt": attempt, "seq": seq, "kind": "step", "data": {}} for attempt, seq in ids], connections=1)


def test_what_was_lost_doubled_or_out_of_order_is_counted(tmp_path: Path) -> None:
    for attempt, count in ((1, 3), (2, 2)):
        writer = EventWriter(tmp_path / f"attempt-{attempt}" / "events.jsonl")
        for number in range(count):
            writer.emit("step", step=number)
        writer.close()
    whole = received((1, 1), (1, 2), (1, 3), (2, 1), (2, 2))
    torn = received((1, 1), (1, 3), (1, 2), (1, 2), (2, 2))

    assert delivery(whole, tmp_path) == {
        "points_received": 5, "points_lost": 0, "points_duplicate": 0, "points_disordered": 0, "connections": 1,
    }  # fmt: skip
    assert delivery(torn, tmp_path) == {
        "points_received": 5, "points_lost": 1, "points_duplicate": 1, "points_disordered": 1, "connections": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "faults"),
    [
        ({}, []),
        ({"points_lost": 2}, ["2 points lost"]),
        ({"points_duplicate": 1, "points_disordered": 3}, ["1 points duplicate", "3 points disordered"]),
        ({"tuned_accuracy": 0.39}, ["accuracy went from 0.1 to 0.39, not up by 0.3"]),
        ({"base_accuracy": None}, ["accuracy went from None to 0.9, not up by 0.3"]),
    ],
)
def test_a_broken_promise_is_said(changes: dict[str, Any], faults: list[str]) -> None:
    body = {"points_lost": 0, "points_duplicate": 0, "points_disordered": 0, "base_accuracy": 0.1, "tuned_accuracy": 0.9}

    assert shortcomings({**body, **changes}) == faults


def test_the_accuracy_is_that_of_the_held_out_rows() -> None:
    rows = [
        {"split": "validation", "model": "tuned", "label_accuracy": 0.1},
        {"split": "test", "model": "tuned", "label_accuracy": 0.8, "exact_match": 0.7},
        {"split": "test", "model": "base", "label_accuracy": None, "exact_match": 0.2},
    ]
    followed = Followed([{"attempt": 1, "seq": seq, "kind": "eval", "data": data} for seq, data in enumerate(rows, 1)])

    assert (accuracy(followed, "base"), accuracy(followed, "tuned"), accuracy(followed, "merged")) == (0.2, 0.8, None)
