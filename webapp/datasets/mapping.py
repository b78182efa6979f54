"""The words of layouts and their fields, and the mapping that was recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

from jobs.data.formats import mapping_from_json
from jobs.errors import UserError
from jobs.spec import Format, Mapping
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
}


def recognised_mapping(version: DatasetVersion) -> Mapping | None:
    """What the form starts with: the version's own mapping, else the likeliest of those recognised, None where there is none."""
    suggestions = version.sniffed.get("suggestions") or []
    return mapping_from_json(version.mapping or (suggestions[0]["mapping"] if suggestions else None))


def suggested_mapping(version: DatasetVersion) -> Mapping:
    """The same for a caller that cannot ask. Raises `UserError("format_unknown")`."""
    mapping = recognised_mapping(version)
    if mapping is None:
        raise UserError("format_unknown", columns=", ".join(columns_of(version)) or "(none)")
    return mapping


def columns_of(version: DatasetVersion) -> list[str]:
    """The columns of the training file."""
    return [str(column) for column in version.sniffed.get("facts", {}).get("columns", [])]
