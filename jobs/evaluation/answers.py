"""Which answers count as right. Plain text in, plain numbers out: no model here."""

from __future__ import annotations

import unicodedata
from collections import Counter
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
    """The classes of classification-like data: the answer that stands for each, as most rows write it."""

    texts: tuple[str, ...]

    def index(self, expected: str) -> int:
        """The class of an expected answer."""
        return [normalise(text) for text in self.texts].index(normalise(expected))


def labels_of(expected: Sequence[str], declared: Sequence[str | None]) -> Labels | None:
    """The classes, where the data is classification-like; None for other data.

    It is where every row has a `label` and each label one answer of its own; or where the expected answers are at most `MAX_LABELS`
    different ones of at most `MAX_LABEL_WORDS` words, with at least two rows for each on average.
    """
    names = [normalise(text) for text in expected]
    kinds = len(set(names))
    pairs = {(normalise(label), name) for label, name in zip(declared, names, strict=True) if label is not None}
    labelled = None not in declared and len(pairs) == kinds == len({label for label, _ in pairs})
    short = kinds <= MAX_LABELS and 2 * kinds <= len(names) and all(len(name.split()) <= MAX_LABEL_WORDS for name in names)
    if kinds < 2 or not (labelled or short):
        return None
    written: dict[str, Counter[str]] = {}
    for name, text in zip(names, expected, strict=True):
        written.setdefault(name, Counter())[text.strip()] += 1
    return Labels(tuple(counts.most_common(1)[0][0] for _, counts in sorted(written.items())))
