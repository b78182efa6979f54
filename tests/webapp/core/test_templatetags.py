"""Tags and filters: figures as words, times as elements, and icons that are there."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from django.template import Context, Template

from webapp.core import formats
from webapp.core.formats import THIN
from webapp.runs.states import LOOK
from webapp.settings.env import PROJECT

SPRITE = (PROJECT / "static" / "icons.svg").read_text(encoding="utf-8")
MOMENT = datetime(2026, 11, 22, 13, 5, 9, tzinfo=UTC)


def render(text: str, **context: Any) -> str:
    return Template(text).render(Context(context))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (1234567, f"1{THIN}234{THIN}567"), (0.123456, "0.1235"), (-12.5, "-12.50"),
        (None, "–"), (math.nan, "–"), (True, "–"), ("7", "–"),
    ],
)  # fmt: skip
def test_numbers(value: Any, text: str) -> None:
    assert formats.format_number(value) == text


@pytest.mark.parametrize(("value", "text"), [(2e-4, "2e-4"), (1.5e-5, "1.5e-5"), (0.01, "0.01"), (0, "0"), (None, "–"), (3, "3")])
def test_learning_rates(value: Any, text: str) -> None:
    assert formats.format_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (999.6, "1.00 kB"), (1_310_000_000, "1.31 GB"), (16e9, "16.0 GB"), (270e6, "270 MB"), (None, "–")],
)
def test_sizes(value: Any, text: str) -> None:
    assert formats.format_bytes(value) == text.replace(" ", THIN)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (59.6, "1 min"), (761, "12 min 41 s"), (3600, "1 h"), (93_784, "1 d 2 h"), (-1, "–"), (None, "–")],
)
def test_durations(value: Any, text: str) -> None:
    assert formats.format_duration(value) == re.sub(r"(\d) (?=[a-z])", rf"\1{THIN}", text)


def test_times_hold_the_moment_for_the_readers_zone() -> None:
    element = '<time datetime="2026-11-22T13:05:09.000+00:00" data-as="{}">{}</time>'
    assert render("{% ago at %}", at=MOMENT) == element.format("ago", "2026-11-22 13:05 UTC")
    assert render("{% when at %}", at=MOMENT.isoformat()) == element.format("date", "2026-11-22 13:05 UTC")
    assert render("{% clock at %}", at=MOMENT.timestamp()) == element.format("clock", "13:05:09")
    assert render("{% ago at %}", at=None) == "–"


def test_a_spark_spans_its_box_and_leaves_out_what_is_missing() -> None:
    drawn = render("{% spark values %}", values=[4.0, None, 2.0, 0.0])
    assert 'd="M0.0,1.0L64.0,12.0L96.0,23.0"' in drawn
    assert "from 4 to 0" in drawn
    assert render("{% spark values %}", values=[1.0]) == ""
    assert render("{% spark values %}", values=None) == ""


def test_an_icon_is_hidden_unless_it_has_a_label() -> None:
    assert 'aria-hidden="true"' in render('{% icon "play" %}')
    assert 'role="img" aria-label="&lt;Start&gt;"' in render('{% icon "play" label %}', label="<Start>")


def test_every_icon_that_is_named_is_in_the_sprite() -> None:
    drawn = set(re.findall(r'<symbol id="([^"]+)"', SPRITE))
    named = {icon for _, icon in LOOK.values()}
    for file in (PROJECT / "templates").rglob("*.html"):
        text = file.read_text(encoding="utf-8")
        named |= set(re.findall(r'{%\s*icon "([^"]+)"', text)) | set(re.findall(r'{%\s*tag "[^"]+" "([^"]+)"', text))
    assert named - drawn == set()


def test_every_vendored_folder_is_listed_with_its_licence() -> None:
    vendor = PROJECT / "static" / "vendor"
    listed = (vendor / "README.md").read_text(encoding="utf-8")
    for folder in (path for path in vendor.iterdir() if path.is_dir()):
        assert f"`{folder.name}`" in listed
        assert (folder / "LICENSE").is_file()
