"""Which runs an experiment has: a grid of methods, ranks, rates and seeds, or a list of lines. Pure: no database, no form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.utils.translation import gettext as _

from jobs.errors import UserError
from jobs.methods.entry import Method, Setting
from jobs.methods.registry import METHODS, get_method
from webapp.core.formats import format_rate

LIMIT = 100
SEEDS_LIMIT = 4294967295
OWN = "own"


@dataclass(frozen=True)
class Cell:
    """One run to be: its method, those settings that are given, its rate (None: the method's own) and its seed."""

    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float | None = None
    seed: int = 0

    @property
    def entry(self) -> Method:
        """Its method in the catalogue."""
        return get_method(self.method)

    @property
    def rate(self) -> float:
        """What it trains at."""
        return self.entry.learning_rate if self.learning_rate is None else self.learning_rate

    def identity(self) -> tuple[str, str, float, int]:
        """Equal for cells that make the same run, however they were written. Raises `UserError` for settings that the method has not."""
        return identity(self.method, self.entry.resolve(dict(self.settings)), self.rate, self.seed)

    def suffix(self) -> str:
        """What tells its run's name from others': `lora-r16-lr1e-4-s0`."""
        settings = [f"r{value}" if name == "rank" else f"{name}{_short(value)}" for name, value in self.settings.items()]
        rate = [] if self.learning_rate is None else [f"lr{format_rate(self.learning_rate)}"]
        return "-".join([self.method, *settings, *rate, f"s{self.seed}"])


def identity(method: str, settings: Mapping[str, Any], rate: float | None, seed: int) -> tuple[str, str, float, int]:
    """What makes a run of an experiment: resolved settings, rate and seed."""
    return method, repr(sorted((name, _short(value)) for name, value in settings.items())), rate or 0.0, seed


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def cells_of(axes: Mapping[str, Any]) -> list[Cell]:
    """The cells of an experiment's `axes`, each once. Raises `ValueError`, in words for the reader, where they cannot be made."""
    cells = list(_of_lines(axes["lines"]) if "lines" in axes else _of_grid(axes))
    return list({cell.identity(): cell for cell in cells}.values())


# -- a grid ------------------------------------------------------------------------------------------------------------


def _of_grid(axes: Mapping[str, Any]) -> Iterator[Cell]:
    """Every method at every rank it has, every rate and every seed; seeds run fastest."""
    for name in axes["methods"]:
        method = get_method(name)
        for settings in _ranked(method, axes.get("ranks") or [], scaled=bool(axes.get("scale_alpha"))):
            for rate in axes.get("rates") or [None]:
                for seed in axes.get("seeds") or [0]:
                    yield Cell(name, settings, rate, seed)


def _ranked(method: Method, ranks: Sequence[int], *, scaled: bool) -> list[dict[str, Any]]:
    """The settings of a method at each rank; one without any where it has no rank, or none is given."""
    settings = {setting.name: setting for setting in method.settings}
    rank, alpha = settings.get("rank"), settings.get("alpha")
    if rank is None or not ranks:
        return [{}]
    found = []
    for value in ranks:
        _check(method, rank, value)
        given: dict[str, Any] = {"rank": value}
        if scaled and alpha is not None:
            given["alpha"] = float(alpha.default) * value / float(rank.default)
        found.append(given)
    return found


def _check(method: Method, setting: Setting, value: Any) -> None:
    try:
        setting.check(method.id, value)
    except UserError as error:
        raise ValueError(f"{method.name}: {error.message}") from None


def numbers(text: str, *, lowest: int, highest: int) -> list[int]:
    """Whole numbers as people write them: `0, 1, 2` or `0-4`, each once, in order. Raises `ValueError`."""
    found: list[int] = []
    for word in re.split(r"[,;\s]+", text.strip()):
        if not word:
            continue
        match = re.fullmatch(r"(\d{1,10})(?:(?:-|–|\.\.)(\d{1,10}))?", word)
        if match is None:
            raise ValueError(_("“%(word)s” is no whole number. Write them as 0, 1, 2 or 0-2.") % {"word": word})
        first, last = int(match[1]), int(match[2] or match[1])
        if not lowest <= first <= last <= highest:
            said = {"word": word, "lowest": lowest, "highest": highest}
            raise ValueError(_("“%(word)s” is not from %(lowest)s to %(highest)s.") % said)
        if last - first >= LIMIT:
            raise ValueError(_("“%(word)s” is more than the %(limit)s runs that one form may launch.") % {"word": word, "limit": LIMIT})
        found += range(first, last + 1)
    return list(dict.fromkeys(found))


def rates(text: str) -> list[float | None]:
    """Learning rates: `1e-4, 2e-4`; `own` (None) is each method's own. Each once, in order. Raises `ValueError`."""
    words = filter(None, re.split(r"[,;\s]+", text.strip()))
    return list(dict.fromkeys(None if word.lower() == OWN else _rate(word) for word in words))


def _rate(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        raise ValueError(_("“%(word)s” is no learning rate. Write it as 2e-4 or 0.0002.") % {"word": word}) from None
    if not 0 < value <= 10:
        raise ValueError(_("A learning rate is above 0 and at most 10; “%(word)s” is not.") % {"word": word})
    return value


# -- a list ------------------------------------------------------------------------------------------------------------


def _of_lines(text: str) -> Iterator[Cell]:
    """A cell for each line (and each of its seeds): `lora rank=16 alpha=16 rate=1e-4 seed=0-2`; `#` begins a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                yield from _of_line(words)
            except ValueError as fault:
                raise ValueError(_("Line %(number)s: %(fault)s") % {"number": number, "fault": fault}) from None


def _of_line(words: Sequence[str]) -> Iterator[Cell]:
    name, *pairs = words
    if name not in METHODS:
        raise ValueError(_("there is no method “%(name)s”. Known are %(known)s.") % {"name": name, "known": ", ".join(METHODS)})
    method = get_method(name)
    known = {setting.name: setting for setting in method.settings}
    settings: dict[str, Any] = {}
    rate, seeds = None, [0]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not value:
            raise ValueError(_("“%(pair)s” is not of the form name=value.") % {"pair": pair})
        if key == "seed":
            seeds = numbers(value, lowest=0, highest=SEEDS_LIMIT)
        elif key == "rate":
            rate = rates(value)[0]
        elif key in known:
            settings[key] = _value(method, known[key], value)
        else:
            said = {"method": method.name, "key": key, "known": ", ".join(["rate", "seed", *known])}
            raise ValueError(_("%(method)s has no setting “%(key)s”. Known are %(known)s.") % said)
    for seed in seeds:
        yield Cell(name, settings, rate, seed)


def _value(method: Method, setting: Setting, word: str) -> Any:
    """A setting's value as typed. Raises `ValueError`."""
    readers: dict[str, Any] = {"int": int, "float": float, "bool": _yes}
    try:
        value = readers.get(setting.type, str)(word)
    except ValueError:
        raise ValueError(_("“%(word)s” is no value of %(setting)s.") % {"word": word, "setting": setting.name}) from None
    _check(method, setting, value)
    return value


def _yes(word: str) -> bool:
    if word.lower() not in ("yes", "no", "true", "false"):
        raise ValueError(word)
    return word.lower() in ("yes", "true")
