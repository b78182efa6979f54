"""The words of layouts and their fields, and the mapping that was recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from jobs.data.formats import CERTAIN_ENOUGH, mapping_from_json
from jobs.errors import UserError
from jobs.spec import Format, Mapping, Task
from jobs.tasks.obstacles import rows_obstacle
from webapp.datasets.models import DatasetVersion

# A text, or one that is translated when it is shown.
if TYPE_CHECKING:
    from django.utils.functional import _StrPromise

    Text = str | _StrPromise


@dataclass(frozen=True)
class Words:
    """A name and a sentence."""

    name: Text
    help: Text


LAYOUTS: dict[Format, Words] = {
    "messages": Words(_("Chat messages"), _("One column holds a list of messages with role and content, as OpenAI writes it.")),
    "sharegpt": Words(_("Conversations (ShareGPT)"), _("One column holds a list of turns, each saying who speaks and what.")),
    "alpaca": Words(_("Instruction and answer (Alpaca)"), _("A column of instructions, perhaps one of further input, and one of answers.")),
    "prompt_completion": Words(_("Prompt and completion"), _("A column of prompts and a column of what follows.")),
    "classification": Words(_("Text with label"), _("A column of texts and a column of labels: the model answers with the label.")),
    "text": Words(_("Plain text"), _("One column of text; the model learns to write more of it.")),
    "sequence_classification": Words(
        _("Text or pair with label, to classify"),
        _("A column of texts, perhaps a second one, and a column of labels: a head tells them apart."),
    ),
    "regression": Words(
        _("Text or pair with number"), _("A column of texts, perhaps a second one, and a column of numbers, such as ratings.")
    ),
    "question_answering": Words(
        _("Question, context and answers"),
        _("As SQuAD writes it: each answer is words of the context, with the character at which it begins."),
    ),
    "multiple_choice": Words(
        _("Question with choices"), _("A column of questions, one of lists of choices, and one that says which is right.")
    ),
}
FIELD_NAMES: dict[str, Text] = {
    "messages": _("Messages"),
    "conversations": _("Turns"),
    "from": _("Key of the speaker within a turn"),
    "value": _("Key of the text within a turn"),
    "instruction": _("Instruction"),
    "input": _("Further input"),
    "output": _("Answer"),
    "system": _("System message"),
    "prompt": _("Prompt"),
    "completion": _("Completion"),
    "text": _("Text"),
    "label": _("Label"),
    "choices": _("Choices (a list of answers, the right one among them)"),
    "text_b": _("Second text"),
    "number": _("Number"),
    "question": _("Question"),
    "context": _("Context"),
    "answers": _("Answers (text and answer_start)"),
    "answer": _("Right choice (its number from 0, letter or text)"),
}


def recognised_mapping(version: DatasetVersion) -> Mapping | None:
    """What the form starts with: the version's own mapping, else the likeliest of those recognised, None where there is none."""
    return mapping_from_json(version.mapping or next(iter(mappings_of(version)), None))


def mappings_of(version: DatasetVersion) -> list[dict[str, Any]]:
    """The mappings that were recognised, as JSON, the likeliest first.

    That of a task other than writing comes first where it takes up more columns than the likeliest for writing (a second text, a context,
    a number would else be left out without a word), or where that one is a mere guess. Else rows for writing serve the task as well.
    """
    suggestions = version.sniffed.get("suggestions") or []
    writing = [each["mapping"] for each in suggestions]
    used = max((len(each["mapping"]["columns"]) for each in suggestions[:1] if each["confidence"] >= CERTAIN_ENOUGH), default=0)
    tasks = sorted((version.sniffed.get("tasks") or {}).values(), key=lambda mapping: -len(mapping["columns"]))
    return sorted([*writing, *tasks], key=lambda mapping: mapping not in tasks or len(mapping["columns"]) <= used)


def suggestion(version: DatasetVersion) -> dict[str, Any] | None:
    """Of the mapping that was recognised as the likeliest: `reason` as a clause and `warnings`; None where there is none."""
    best = next(iter(mappings_of(version)), None)
    if best is None:
        return None
    for known in version.sniffed.get("suggestions") or []:
        if known["mapping"] == best:
            return dict(known)
    columns = ", ".join(f"'{column}'" for column in best["columns"].values())
    return {"reason": gettext("the columns %(columns)s are those of this layout") % {"columns": columns}, "warnings": []}


def suggested_mapping(version: DatasetVersion) -> Mapping:
    """The same for a caller that cannot ask. Raises `UserError("format_unknown")`."""
    mapping = recognised_mapping(version)
    if mapping is None:
        raise UserError("format_unknown", columns=", ".join(columns_of(version)) or "(none)")
    return mapping


def unfit_rows(task: Task, version: DatasetVersion) -> str:
    """One clause that says why the rows of a ready version do not serve a task; empty where they do."""
    labels = version.report.get("labels") or {}
    return rows_obstacle(task, mapping_from_json(version.mapping), labels.get("distinct"))


def columns_of(version: DatasetVersion) -> list[str]:
    """The columns of the training file."""
    return [str(column) for column in version.sniffed.get("facts", {}).get("columns", [])]
