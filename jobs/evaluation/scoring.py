"""Right or wrong by likelihood: which label, and which of a row's own choices, the model finds the likeliest answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.data.encoding import expected_answer, place_of_answer
from jobs.evaluation.answers import Labels
from jobs.evaluation.candidates import in_place
from jobs.evaluation.likelihood import Asked, log_likelihoods

Record = Mapping[str, Any]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Choice:
    """A question with its answers to choose from; `right` is the place of the expected one."""

    asked: Asked
    right: int
    characters: Sequence[int]


@dataclass(frozen=True)
class ChoiceScore:
    """How many questions were asked, and of how many the right answer won: by log-likelihood, and by log-likelihood per character."""

    asked: int
    right: int
    right_normalised: int

    @property
    def accuracy(self) -> float | None:
        """Share that is right; None where nothing was asked."""
        return self.right / self.asked if self.asked else None

    @property
    def accuracy_normalised(self) -> float | None:
        """The same by log-likelihood per character."""
        return self.right_normalised / self.asked if self.asked else None


def label_accuracy(model: Any, tokenizer: Any, records: Sequence[Record], labels: Labels, progress: Progress | None = None) -> float | None:
    """Share of the records whose own label is the likeliest of all labels in its place; None where none could be asked.

    Each label counts with the token that ends an answer, as in training: without it a label that begins another ("refund",
    "refund status") could never lose to it. So the winner is what the model would write if it could only write a label.
    """
    questions = []
    for record in records:
        place = place_of_answer(record, tokenizer)
        asked = in_place(place, labels.texts, tokenizer, closed=True) if place else None
        if asked:
            questions.append(Choice(asked, labels.index(expected_answer(record) or ""), [1] * len(labels.texts)))
    return _score(model, questions, progress).accuracy


def choice_score(model: Any, tokenizer: Any, records: Sequence[Record], progress: Progress | None = None) -> ChoiceScore:
    """Of the records that carry `choices`, how many are answered rightly by likelihood."""
    return _score(model, choice_questions(tokenizer, records), progress)


def choice_questions(tokenizer: Any, records: Sequence[Record]) -> list[Choice]:
    """The records that carry `choices`, as questions.

    As EleutherAI's lm-evaluation-harness asks multiple choice (lm_eval/api/task.py, `process_results`: `acc`, and `acc_norm` per
    character of the choice): the choice's own tokens, without one that ends the answer.
    """
    questions = []
    for record in records:
        choices = [str(choice).strip() for choice in record.get("choices") or ()]
        place = place_of_answer(record, tokenizer) if choices else None
        asked = in_place(place, choices, tokenizer, closed=False) if place else None
        if asked:
            right = choices.index((expected_answer(record) or "").strip())
            questions.append(Choice(asked, right, [len(choice) for choice in choices]))
    return questions


def tally(questions: Sequence[Choice], found: Sequence[Sequence[float]]) -> ChoiceScore:
    """Who wins: `found` are the log-likelihoods of each question's answers. A tie goes to the first."""
    right = right_normalised = 0
    for question, sums in zip(questions, found, strict=True):
        per_character = [value / count for value, count in zip(sums, question.characters, strict=True)]
        right += sums.index(max(sums)) == question.right
        right_normalised += per_character.index(max(per_character)) == question.right
    return ChoiceScore(len(questions), right, right_normalised)


def _score(model: Any, questions: Sequence[Choice], progress: Progress | None) -> ChoiceScore:
    return tally(questions, log_likelihoods(model, [question.asked for question in questions], progress))
