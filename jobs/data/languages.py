"""In which languages rows are written: a guess, by py3langid (97 languages, offline), of some rows evenly spread over a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

LOOKED_AT = 2000
# Below this confidence, or with fewer letters, nothing is guessed.
CERTAIN = 0.6
LEAST_LETTERS = 12
READ_CHARACTERS = 2000
UNCLEAR = "und"


def languages(texts: Iterable[str]) -> dict[str, Any]:
    """`looked_at` texts, and `counts`: of each language (ISO 639 code) so many `rows`, the most frequent first; `unclear` ones apart."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    guess = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True, min_confidence=CERTAIN)
    counts: Counter[str] = Counter()
    for text in texts:
        part = text[:READ_CHARACTERS]
        enough = sum(map(str.isalpha, part[:200])) >= LEAST_LETTERS
        counts[guess.classify(part)[0] if enough else UNCLEAR] += 1
    unclear = counts.pop(UNCLEAR, 0)
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {
        "looked_at": counts.total() + unclear,
        "unclear": unclear,
        "counts": [{"code": code, "rows": rows} for code, rows in shown],
    }
