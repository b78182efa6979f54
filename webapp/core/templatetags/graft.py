"""Tags and filters that every template has (`builtins`): icons, tags, figures with units, times, form fields.

Figures are written by `webapp.core.formats`; times as `<time>` elements that static/js/times.js renders in the reader's zone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from django import template
from django.forms import BoundField
from django.templatetags.static import static
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.timezone import is_naive
from django.utils.translation import gettext as _

from webapp.core import formats

register = template.Library()

register.filter("number", formats.format_number)
register.filter("rate", formats.format_rate)
register.filter("bytes", formats.format_bytes)
register.filter("duration", formats.format_duration)
register.filter("percent", formats.format_percent)

_ALERTS = {
    "success": ("ok", "circle-check"),
    "error": ("err", "circle-x"),
    "warning": ("warn", "triangle-alert"),
}
SPARK_WIDTH, SPARK_HEIGHT = 96, 24


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """An icon of static/icons.svg by its Lucide name. Without a label it is decoration, and hidden from screen readers."""
    use = format_html('<use href="{}#{}"></use>', static("icons.svg"), name)
    if label:
        return format_html('<svg class="icon" role="img" aria-label="{}">{}</svg>', label, use)
    return format_html('<svg class="icon" aria-hidden="true">{}</svg>', use)


@register.simple_tag
def tag(look: str, icon_name: str, words: str) -> SafeString:
    """A tag: colour class (ok, warn, err, info, idle), icon and words; never colour alone."""
    return format_html('<span class="tag {}">{}{}</span>', look, icon(icon_name), words)


@register.filter
def alert_class(level: str) -> str:
    """The `.alert` class of a message's level."""
    return _ALERTS.get(level, ("info", "info"))[0]


@register.filter
def alert_icon(level: str) -> str:
    """The icon of a message's level."""
    return _ALERTS.get(level, ("info", "info"))[1]


@register.simple_tag
def ago(value: datetime | str | None) -> SafeString:
    """A moment as `5 min ago`, in the reader's zone where scripts run."""
    return _time(value, "ago")


@register.simple_tag
def when(value: datetime | str | None) -> SafeString:
    """A moment as date and time of day, in the reader's zone where scripts run."""
    return _time(value, "date")


@register.simple_tag
def clock(seconds: float | None) -> SafeString:
    """A moment (seconds since the epoch) as time of day, in the reader's zone where scripts run."""
    return _time(None if seconds is None else datetime.fromtimestamp(seconds, UTC), "clock")


def _time(value: datetime | str | None, style: str) -> SafeString:
    moment = parse_datetime(value) if isinstance(value, str) else value
    if moment is None:
        return mark_safe(formats.NONE)  # noqa: S308
    moment = (moment.replace(tzinfo=UTC) if is_naive(moment) else moment).astimezone(UTC)
    text = moment.strftime("%H:%M:%S" if style == "clock" else "%Y-%m-%d %H:%M UTC")
    return format_html('<time datetime="{}" data-as="{}">{}</time>', moment.isoformat(timespec="milliseconds"), style, text)


@register.simple_tag
def spark(values: Sequence[float | None] | None) -> SafeString:
    """A small curve of `values` (None is left out), scaled to its own range; empty below two points."""
    points = [(index, value) for index, value in enumerate(values or ()) if formats.number_of(value) is not None]
    if len(points) < 2:
        return mark_safe("")
    first, last = formats.format_number(points[0][1]), formats.format_number(points[-1][1])
    label = _("Training loss from %(first)s to %(last)s") % {"first": first, "last": last}
    return format_html(
        '<svg class="spark" viewBox="0 0 {} {}" role="img" aria-label="{}"><path d="{}"/></svg>',
        SPARK_WIDTH, SPARK_HEIGHT, label, _path([(index, float(value or 0)) for index, value in points]),
    )  # fmt: skip


def _path(points: list[tuple[int, float]]) -> str:
    low, high = min(value for _, value in points), max(value for _, value in points)
    span = (high - low) or 1.0
    width = points[-1][0] or 1

    def place(index: int, value: float) -> str:
        return f"{index * SPARK_WIDTH / width:.1f},{1 + (SPARK_HEIGHT - 2) * (high - value) / span:.1f}"

    return "M" + "L".join(place(*point) for point in points)


@register.inclusion_tag("core/_field.html")
def field(bound: BoundField) -> dict[str, Any]:
    """A form field with label, help and errors, tied together for screen readers."""
    return {"field": bound, "check": getattr(bound.field.widget, "input_type", "") == "checkbox"}
