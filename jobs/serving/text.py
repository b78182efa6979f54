"""From tokens to text, piece by piece: never half a character, and nothing that may turn out to be a stop sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_BROKEN = "\ufffd"
# Tokens of context behind which the text of a token does not change.
_CONTEXT = 8


class Writer:
    """The text of one answer as it grows. `stops` end it; what stands before the first of them is the answer."""

    def __init__(self, tokenizer: Any, stops: Sequence[str] = ()) -> None:
        self._tokenizer, self._stops = tokenizer, tuple(stops)
        self._ids: list[int] = []
        self._done = 0
        self._held = ""
        self.stopped = False

    def add(self, token: int) -> str:
        """What can be said now, with one token more."""
        self._ids.append(token)
        return self._pass(self._fresh(final=False), final=False)

    def end(self) -> str:
        """What was held back and is the answer's after all."""
        return "" if self.stopped else self._pass(self._fresh(final=True), final=True)

    def _fresh(self, *, final: bool) -> str:
        start = max(0, self._done - _CONTEXT)
        before = self._decode(self._ids[start : self._done])
        whole = self._decode(self._ids[start:])
        if whole.endswith(_BROKEN) and not final:
            return ""
        self._done = len(self._ids)
        return whole[len(before) :]

    def _pass(self, fresh: str, *, final: bool) -> str:
        self._held += fresh
        found = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            said, self._held = self._held[: min(found)], ""
            return said
        kept = 0 if final else max((_overlap(self._held, stop) for stop in self._stops), default=0)
        said, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return said

    def _decode(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text may be the beginning of the stop sequence."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
