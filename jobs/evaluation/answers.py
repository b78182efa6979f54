"""Which answers count as right. Plain text in, plain numbers out: no model here."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

MAX_LABELS = 50
MAX_LABEL_WORDS = 8


def normalise(text: str) -> str:
    """`text` as it is compared: Unicode NFKC, case folded, white space collapsed and stripped."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def exact(answer: str, expected: str) -> bool:
    """Whether the whole answer is the expected one, after `normalise`."""
    return normalise(answer) == normalise(expected)


@dataclass(frozen=True)
class Labels:
    """The classes of classification-like data, normalised."""

    names: tuple[str, ...]

    def named_in(self, answer: str) -> str | None:
        """The label that an answer names: the whole answer, else the only label that stands in it as a word of its own."""
        text = normalise(answer)
        if text in self.names:
            return text
        # A label within a longer label that was found ("refund" in "refund status") does not count as a second one.
        found = [name for name in self.names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text)]
        longest = [name for name in found if not any(name != other and name in other for other in found)]
        return longest[0] if len(longest) == 1 else None


def labels_of(expected: Sequence[str], declared: Sequence[str | None]) -> Labels | None:
    """The classes, where the data is classification-like: every row has a `label`, or the expected answers are at most `MAX_LABELS`
    different ones of at most `MAX_LABEL_WORDS` words, with at least two rows for each on average. None for other data.
    """
    if expected and all(label is not None for label in declared):
        return Labels(tuple(sorted({normalise(str(label)) for label in declared})))
    names = sorted({normalise(text) for text in expected})
    short = all(len(name.split()) <= MAX_LABEL_WORDS for name in names)
    if names and short and len(names) <= MAX_LABELS and 2 * len(names) <= len(expected):
        return Labels(tuple(names))
    return None
