"""The tasks, in the order of the form. Free of torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from jobs.errors import UserError
from jobs.spec import TASKS, Task
from jobs.tasks.entry import Metric, TaskEntry

if TYPE_CHECKING:
    from jobs.tasks.work import Work

LOSS = Metric("loss", "Loss", "Mean cross-entropy, in nats.", share=False, lower_is_better=True)
EXACT_MATCH = Metric("exact_match", "Exact match", "Share of answers that are the expected one, word for word.")
ACCURACY = Metric("accuracy", "Accuracy", "Share of rows with the right answer.")

ENTRIES: tuple[TaskEntry, ...] = (
    TaskEntry(
        "causal_lm",
        "Writing",
        "The model learns to write: answers in a chat, completions, or more text of a kind.",
        (
            LOSS, EXACT_MATCH,
            Metric("label_accuracy", "Label accuracy", "Share of rows whose label the model finds the likeliest."),
            Metric("choice_accuracy", "Choice accuracy", "Share of rows whose right choice the model finds the likeliest."),
        ),
        "jobs.tasks.causal_lm:CausalLm",
    ),
    TaskEntry(
        "sequence_classification",
        "Classification",
        "The model learns which of some labels belongs to a text, or to a pair of texts.",
        (
            ACCURACY,
            Metric("f1_macro", "F1, mean of the labels", "The mean of the labels' F1: each counts alike, however rare."),
            Metric("f1_positive", "F1 of the second label", "Of two labels, the F1 of the one that sorts last, as GLUE has it."),
            Metric("matthews", "Matthews correlation", "1 is perfect, 0 no better than chance; fair to rare labels."),
            LOSS,
        ),
        "jobs.tasks.sequence_classification:SequenceClassification",
    ),
    TaskEntry(
        "regression",
        "Rating",
        "The model learns a number for a text, or for a pair of texts, such as a rating or how alike they are.",
        (
            Metric("pearson", "Pearson correlation", "How well predictions and numbers lie on a line; 1 is perfect."),
            Metric("spearman", "Spearman correlation", "How well predictions put the rows in order; 1 is perfect."),
            Metric("mean_squared_error", "Mean squared error", "In the squared unit of the numbers.", share=False, lower_is_better=True),
        ),
        "jobs.tasks.regression:Regression",
    ),
    TaskEntry(
        "question_answering",
        "Finding answers",
        "The model learns to mark the words of a text that answer a question; long texts are read in overlapping windows.",
        (
            Metric("f1", "F1", "Overlap of the words of answer and expected answer, as SQuAD has it."),
            Metric("exact_match", "Exact match", "Share of answers equal to an expected one, as SQuAD compares them."),
            LOSS,
        ),
        "jobs.tasks.question_answering:QuestionAnswering",
    ),
    TaskEntry(
        "multiple_choice",
        "Multiple choice",
        "An encoder learns which of a question's choices is right. A model that writes chooses by likelihood: train it for writing.",
        (ACCURACY, LOSS),
        "jobs.tasks.multiple_choice:MultipleChoice",
    ),
    TaskEntry(
        "seq2seq_lm",
        "Text to text",
        "An encoder-decoder such as T5 learns to turn one text into another.",
        (LOSS, EXACT_MATCH),
        "jobs.tasks.seq2seq_lm:Seq2SeqLm",
    ),
)  # fmt: skip
_BY_ID = {entry.id: entry for entry in ENTRIES}


def get_task(task: Task) -> TaskEntry:
    """The entry of a task. Raises `UserError("spec_bad_value")`."""
    if task not in _BY_ID:
        raise UserError("spec_bad_value", field="task", value=repr(task), reason=f"known are {', '.join(TASKS)}", where={"field": "task"})
    return _BY_ID[task]


def make_work(task: Task) -> Work:
    """What does a task's work in a run; loads torch."""
    module, name = get_task(task).work.split(":")
    work: Work = getattr(import_module(module), name)()
    return work
