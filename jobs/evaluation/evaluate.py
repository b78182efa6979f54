"""A model on held-out rows: loss, perplexity, token accuracy, which answers it finds the likeliest, and whether its own are right."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from jobs.data.encoding import expected_answer, prompt_ids_for_generation
from jobs.data.split import spread
from jobs.evaluation.answers import Labels, exact, labels_of
from jobs.evaluation.generation import generate
from jobs.evaluation.scoring import choice_score, label_accuracy
from jobs.evaluation.sums import LARGEST_EXPONENT, LossSums
from jobs.spec import EvaluationSpec

# Answers longer than this (in tokens, by the median) are prose: to match one word for word says nothing, and takes long to find out.
LONG_ANSWER_TOKENS = 64
# What an answer may be longer than the longest label: room for an end-of-turn token and a little too much.
SPARE_TOKENS = 4


@dataclass(frozen=True)
class Question:
    """A held-out row as the model is asked it: the prompt's token ids, its text, the expected answer."""

    index: int
    prompt_ids: Sequence[int]
    prompt: str
    expected: str


class Asked(NamedTuple):
    """Questions, whether an answer to them can be right or wrong (`scored`), and the most tokens of an answer."""

    questions: Sequence[Question]
    scored: bool
    longest: int


def evaluate(
    model: Any,
    tokenizer: Any,
    records: Sequence[Mapping[str, Any]],
    spec: EvaluationSpec,
    *,
    loss_of: Callable[[], LossSums],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """The data of an `eval` event less `step epoch split model`, and `samples`: the data of `sample` events less `step model`.

    `records` are the held-out rows in the three shapes of `jobs.data`; `loss_of()` gives their `LossSums`. At most
    `spec.rows` of those that have an expected answer are asked, spread evenly; which ones depends on their number alone, so that base
    and tuned model get the same. Of these, `exact_match` is the share whose generated answer is the expected one; `label_accuracy`,
    where the data is classification-like, and the choice accuracies, where rows carry `choices`, go by likelihood
    (`jobs.evaluation.scoring`) and generate nothing. Null is what was not measured. The model computes in its own dtype: a caller that
    trains under autocast calls this under it too.
    """
    start = time.monotonic()
    loss = loss_of()
    mean = loss.loss_sum / loss.tokens if loss.tokens else None
    answerable = [index for index, record in enumerate(records) if expected_answer(record) is not None]
    labels = _labels([records[index] for index in answerable])
    asked = spread(answerable, spec.rows)
    chosen = [records[index] for index in asked]
    choices = choice_score(model, tokenizer, chosen, progress)
    accuracy = label_accuracy(model, tokenizer, chosen, labels, progress) if labels else None
    questions = _to_ask(records, tokenizer, asked, labels, spec)
    answers = _answer(model, tokenizer, questions, progress)
    return {
        "loss": mean,
        "perplexity": None if mean is None else math.exp(min(mean, LARGEST_EXPONENT)),
        "token_accuracy": loss.correct / loss.tokens if loss.tokens else None,
        "exact_match": _exact_match(questions, answers),
        "label_accuracy": accuracy,
        "choice_accuracy": choices.accuracy,
        "choice_accuracy_normalised": choices.accuracy_normalised,
        "rows": len(records),
        "tokens": loss.tokens,
        "seconds": time.monotonic() - start,
        "samples": _samples(questions, answers, spec.samples),
    }


def to_sample(records: Sequence[Mapping[str, Any]], tokenizer: Any, spec: EvaluationSpec, most: int) -> Asked:
    """At most `most` of the questions whose answers `evaluate` gives as samples, to be asked again and again by `sample`."""
    answerable = [index for index, record in enumerate(records) if expected_answer(record) is not None]
    labels = _labels([records[index] for index in answerable])
    asked = _to_ask(records, tokenizer, spread(answerable, spec.rows), labels, spec)
    return asked._replace(questions=spread(spread(asked.questions, spec.samples), most))


def sample(model: Any, tokenizer: Any, asked: Asked) -> list[dict[str, Any]]:
    """The answers as `samples` of `evaluate`; nothing else is measured."""
    return _samples(asked, _answer(model, tokenizer, asked, None), len(asked.questions))


def _labels(records: Sequence[Mapping[str, Any]]) -> Labels | None:
    """The classes among all held-out rows, whichever of them are asked."""
    return labels_of([str(expected_answer(record)) for record in records], [record.get("label") for record in records])


def questions_of(records: Sequence[Mapping[str, Any]], tokenizer: Any, asked: Sequence[int]) -> list[Question]:
    """The rows of those indices as questions, but for those with nothing before the answer."""
    questions = []
    for index in asked:
        prompt_ids = prompt_ids_for_generation(records[index], tokenizer)
        if prompt_ids:
            questions.append(Question(index, prompt_ids, _last_words(records[index]), str(expected_answer(records[index]))))
    return questions


def _last_words(record: Mapping[str, Any]) -> str:
    """What the reader of a sample sees as the question: the prompt, or the last message that is not the answer."""
    if "prompt" in record:
        return str(record["prompt"])
    roles = [message["role"] for message in record["messages"]]
    last = len(roles) - 1 - roles[::-1].index("assistant")
    return str(record["messages"][last - 1]["content"]) if last else ""


def _to_ask(
    records: Sequence[Mapping[str, Any]], tokenizer: Any, chosen: Sequence[int], labels: Labels | None, spec: EvaluationSpec
) -> Asked:
    """The rows of the indices `chosen`; of prose, only as many as are shown as samples. None where the spec wants nothing generated."""
    questions = questions_of(records, tokenizer, chosen) if spec.generate else []
    if not questions:
        return Asked([], False, spec.max_new_tokens)
    lengths = [len(ids) for ids in tokenizer([question.expected for question in questions], add_special_tokens=False)["input_ids"]]
    scored = statistics.median(lengths) <= LONG_ANSWER_TOKENS
    longest = min(spec.max_new_tokens, max(lengths) + SPARE_TOKENS) if labels else spec.max_new_tokens
    return Asked(questions if scored else questions[: spec.samples], scored, longest)


def _answer(model: Any, tokenizer: Any, asked: Asked, progress: Callable[[int, int], None] | None) -> list[str]:
    if not asked.questions:
        return []
    prompts = [question.prompt_ids for question in asked.questions]
    return [answer.strip() for answer in generate(model, tokenizer, prompts, max_new_tokens=asked.longest, progress=progress)]


def _exact_match(asked: Asked, answers: Sequence[str]) -> float | None:
    if not asked.scored or not asked.questions:
        return None
    right = sum(exact(answer, question.expected) for question, answer in zip(asked.questions, answers, strict=True))
    return right / len(asked.questions)


def _samples(asked: Asked, answers: Sequence[str], count: int) -> list[dict[str, Any]]:
    pairs = list(zip(asked.questions, answers, strict=True))
    return [
        {
            "index": question.index,
            "prompt": question.prompt,
            "answer": answer,
            "expected": question.expected,
            "correct": exact(answer, question.expected) if asked.scored else None,
        }
        for question, answer in spread(pairs, count)
    ]
