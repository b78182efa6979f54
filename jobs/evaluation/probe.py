"""Graft's general probe: sixty short items of six kinds, the same for every run, on which forgetting is measured.

The items are in examples/probe, a file for each kind. They are plain text, whatever the run trains on, so that no chat template takes part;
the end-of-sequence token is left out, since a run that only learns to stop has not learnt to speak.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from jobs.data.encoding import Encoded, encode_records
from jobs.data.records import read_records
from jobs.data.rows import Record
from jobs.data.tokens import LENGTH_CAP
from jobs.evaluation.likelihood import known_positions, log_likelihoods
from jobs.evaluation.scoring import ChoiceScore, choice_questions, tally
from jobs.evaluation.sums import LARGEST_EXPONENT, LossSums

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "probe"
KINDS = ("knowledge", "arithmetic", "grammar", "code", "prose", "instructions")


@cache
def load_probe() -> dict[str, list[Record]]:
    """The items by kind, in the shapes of `jobs.data`."""
    return {kind: [record for _, record in read_records(FOLDER / f"{kind}.jsonl", None)] for kind in KINDS}


@dataclass(frozen=True)
class _Kind:
    rows: int
    loss: LossSums
    choices: ChoiceScore


def measure_probe(
    model: Any,
    tokenizer: Any,
    *,
    loss_of: Callable[[Sequence[Encoded]], LossSums],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The data of an `eval` event of the split `probe`, less `step epoch split model`.

    `loss_of(rows)` gives the sums of some rows; rows longer than the model's positions are cut. `progress(done, total)` counts items.
    """
    start = time.monotonic()
    limit = known_positions(model) or LENGTH_CAP
    scores = _choices(model, tokenizer)
    kinds: dict[str, _Kind] = {}
    total = sum(len(records) for records in load_probe().values())
    for name, records in load_probe().items():
        encoded = encode_records(records, tokenizer, max_length=limit, length_limit=limit).rows
        loss = loss_of([_without_end(row, tokenizer.eos_token_id) for row in encoded])
        kinds[name] = _Kind(len(records), loss, scores[name])
        if progress:
            progress(sum(kind.rows for kind in kinds.values()), total)
    whole = _figures(list(kinds.values()))
    return {
        **whole,
        "perplexity": None if whole["loss"] is None else math.exp(min(whole["loss"], LARGEST_EXPONENT)),
        "exact_match": None,
        "label_accuracy": None,
        "seconds": time.monotonic() - start,
        "kinds": {name: _figures([kind]) for name, kind in kinds.items()},
    }


def _choices(model: Any, tokenizer: Any) -> dict[str, ChoiceScore]:
    """The scores by kind, all questions asked together."""
    questions = {name: choice_questions(tokenizer, records) for name, records in load_probe().items()}
    found = iter(log_likelihoods(model, [question.asked for asked in questions.values() for question in asked]))
    return {name: tally(asked, list(islice(found, len(asked)))) for name, asked in questions.items()}


def _figures(kinds: Sequence[_Kind]) -> dict[str, Any]:
    """The figures of one kind or of all, each token and each question counted alike."""
    tokens, asked = sum(kind.loss.tokens for kind in kinds), sum(kind.choices.asked for kind in kinds)
    return {
        "loss": sum(kind.loss.loss_sum for kind in kinds) / tokens if tokens else None,
        "token_accuracy": sum(kind.loss.correct for kind in kinds) / tokens if tokens else None,
        "choice_accuracy": sum(kind.choices.right for kind in kinds) / asked if asked else None,
        "choice_accuracy_normalised": sum(kind.choices.right_normalised for kind in kinds) / asked if asked else None,
        "rows": sum(kind.rows for kind in kinds),
        "tokens": tokens,
    }


def _without_end(row: Encoded, end: int) -> Encoded:
    return Encoded(row.ids[:-1], row.trained[:-1]) if row.ids[-1] == end else row
