"""Numbers, sizes and times as words: the same rules as static/js/formats.js, which writes the live figures."""

from __future__ import annotations

import math
from typing import Any

# Between the thousands of a number and before a unit: narrow, and never broken at the end of a line.
THIN = "\u202f"
NONE = "–"


def one_line(text: str) -> str:
    """The text with every run of white space as one space: a name in the subject of a mail, where a line break begins another header."""
    return " ".join(text.split())


def number_of(value: Any) -> float | None:
    """`value` as a finite number, else None (absent, not a number, not finite)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def format_number(value: Any, digits: int | None = None) -> str:
    """A number with thin spaces between thousands; `digits` after the point, by default none for whole numbers, else 4 significant."""
    number = number_of(value)
    if number is None:
        return NONE
    if digits is None:
        digits = 0 if float(number).is_integer() else max(0, 3 - math.floor(math.log10(abs(number))))
    return f"{number:,.{min(digits, 8)}f}".replace(",", THIN)


def format_rate(value: Any) -> str:
    """A small number as people write learning rates: 2e-4, 0.01."""
    number = number_of(value)
    if number is None:
        return NONE
    if number == 0 or abs(number) >= 0.01:
        return f"{float(f'{number:.6g}'):.10g}"
    mantissa, exponent = f"{number:.2e}".split("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def format_bytes(value: Any) -> str:
    """A size in decimal units (1 kB = 1000 bytes), three significant digits."""
    number = number_of(value)
    if number is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(number) < 999.5 or unit == "TB":
            break
        number /= 1000
    digits = 0 if unit == "B" or abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2
    return f"{number:.{digits}f}{THIN}{unit}"


def format_duration(value: Any) -> str:
    """Seconds as the two greatest units: 4.2 s, 12 min 41 s, 3 h 5 min, 2 d 4 h."""
    seconds = number_of(value)
    if seconds is None or seconds < 0:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.1f}{THIN}s"
    whole = int(seconds + 0.5)
    for size, unit, small, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size}{THIN}{unit}" + (f" {rest}{THIN}{small_unit}" if rest else "")
    return f"{whole}{THIN}s"


def format_percent(value: Any, digits: int = 1) -> str:
    """A share (0 to 1) in per cent."""
    number = number_of(value)
    return NONE if number is None else f"{100 * number:.{digits}f}{THIN}%"
