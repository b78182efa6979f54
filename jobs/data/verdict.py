"""Whether a training on these rows would learn anything at all: what a launch is refused for, with its code and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.data.rows import problem

# Layouts whose rows teach a label and nothing else.
LABELLED = ("classification", "sequence_classification")


def blocking(report: Mapping[str, Any]) -> dict[str, str] | None:
    """Of a validation's report: `code`, `message` and `remedy` where nothing would be learned, else None."""
    counts, bad = report["counts"], report["bad"]
    labels = report["labels"] or {}
    if not report["good"]:
        for code, cause in (("all_masked", "chat_no_answer"), ("all_empty", "answer_empty")):
            if bad and counts.get(cause) == bad:
                return _words(code, count=bad)
        return _words("no_rows")
    if report["format"] in LABELLED and labels.get("distinct") == 1 and report["good"] > 1:
        return _words("one_class", label=str(labels["counts"][0]["label"])[:80])
    return None


def _words(code: str, **blanks: Any) -> dict[str, str]:
    found = problem(code, **blanks)
    return {"code": found.code, "message": found.message, "remedy": found.remedy}
