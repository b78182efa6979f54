"""Exact match and F1 of extracted answers, as SQuAD has them (Rajpurkar et al. 2016, arXiv:1606.05250; evaluate-v1.1). Free of torch."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(answer: str) -> str:
    """Lower case, without (ASCII) punctuation, English articles and outer or doubled white space."""
    return " ".join(_ARTICLES.sub(" ", answer.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, expected: str) -> float:
    """1 where the two are the same once normalised, else 0."""
    return float(normalised(answer) == normalised(expected))


def f1(answer: str, expected: str) -> float:
    """The harmonic mean of precision and recall over words; where one side has none, 1 if neither has (SQuAD 2.0's rule)."""
    found, wanted = normalised(answer).split(), normalised(expected).split()
    if not found or not wanted:
        return float(found == wanted)
    shared = sum((Counter(found) & Counter(wanted)).values())
    return 2 * shared / (len(found) + len(wanted))


def scores(answers: Sequence[str], expected: Sequence[Sequence[str]]) -> dict[str, float | None]:
    """`exact_match` and `f1` as shares (0 to 1), each answer scored against the best of its expected ones (none: it has no answer)."""
    pairs = list(zip(answers, expected, strict=True))

    def mean(score: Callable[[str, str], float]) -> float | None:
        return sum(max(score(answer, one) for one in (wanted or [""])) for answer, wanted in pairs) / len(pairs) if pairs else None

    return {"exact_match": mean(exact_match), "f1": mean(f1)}
