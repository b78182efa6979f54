"""Errors with stable codes, and the exit codes of `python -m jobs`.

Two families: `UserError` (something the user gave cannot be used: exit 78 and a remedy) and every other `GraftError`
(the machine, the disk, the numbers). The words of each code live in `CATALOGUE` alone; callers fill in the blanks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """Exit codes of the training child; a negative code, as `subprocess` reports it, is a signal."""

    DONE = 0
    INTERNAL = 1
    PREEMPTED = 75
    BAD_INPUT = 78
    NON_FINITE = 79
    CUDA_OOM = 80
    DISK_FULL = 81


@dataclass(frozen=True)
class ErrorText:
    """The words of one error code: what happened, and what to do about it. Both are `str.format` templates."""

    message: str
    remedy: str
    exit_code: ExitCode = ExitCode.BAD_INPUT


CATALOGUE: dict[str, ErrorText] = {
    # -- the spec ------------------------------------------------------------------------------------------------
    "spec_not_json": ErrorText("The run spec is not valid JSON: {reason}.", "Correct the file at the place named."),
    "spec_version": ErrorText(
        "The run spec has version {found}; this program reads version {expected}.", "Write the spec anew, or update."
    ),
    "spec_unknown_field": ErrorText("The run spec has an unknown field '{field}'.", "Remove it. Known: {known}."),
    "spec_missing_field": ErrorText("The run spec lacks the field '{field}'.", "Add it."),
    "spec_bad_value": ErrorText("'{field}' is {value}: {reason}.", "Give a value that is allowed."),
    # -- files and data ------------------------------------------------------------------------------------------
    "file_missing": ErrorText("There is no file at {path}.", "Check the path."),
    "file_empty": ErrorText("The file is empty.", "Choose a file with at least one row."),
    "file_kind_unknown": ErrorText(
        "This is not a file of text rows: {reason}.",
        "Save the data as JSONL, JSON, CSV, TSV, Parquet or plain text (each may be gzipped) and upload that.",
    ),
    "file_too_large": ErrorText("The file unpacks to more than {limit}.", "Split it, or ask your administrator to raise the limit."),
    "encoding_unknown": ErrorText(
        "The text is neither UTF-8 nor UTF-16, and byte {offset} (line {line}) does not fit any encoding we recognise.",
        "Save the file as UTF-8.",
    ),
    "json_invalid": ErrorText("Line {line}, column {column}: not valid JSON ({reason}).", "Correct the line, or skip it."),
    "json_not_object": ErrorText("Line {line}: expected a JSON object, found {found}.", "Each row must be an object: {{...}}."),
    "json_too_deep": ErrorText("Line {line}: brackets are nested more than {limit} deep.", "Flatten the row, or skip it."),
    "line_too_long": ErrorText("Line {line} is longer than {limit}.", "Split the row, or skip it."),
    "no_rows": ErrorText("No usable row was found.", "Check the mapping of the columns, or choose another file."),
    "mapping_invalid": ErrorText("The mapping does not fit the file: {reason}.", "Choose the columns again."),
    "format_unknown": ErrorText(
        "None of the known layouts fits the columns {columns}.", "Map the columns by hand: which one is the input, which one the answer?"
    ),
    "nothing_to_learn": ErrorText(
        "No row leaves a token to learn from at a maximum length of {max_length} tokens.",
        "Raise the maximum length, or check that the answers are not empty.",
    ),
    # -- model, method, device -----------------------------------------------------------------------------------
    "model_missing": ErrorText("There is no model at {path}.", "Add the base model again."),
    "model_unusable": ErrorText("The model cannot be used: {reason}.", "Choose another base model."),
    "method_unknown": ErrorText("There is no method '{method}'.", "Known methods: {known}."),
    "method_setting": ErrorText("Method {method}: setting '{setting}' {reason}.", "Give a value that is allowed."),
    "device_cannot": ErrorText("{what} cannot run on this device: {reason}.", "{instead}"),
    # -- what happens while it runs ------------------------------------------------------------------------------
    "nonfinite": ErrorText(
        "The loss or the gradient was not finite for {count} steps in a row, last at step {step}.",
        "Lower the learning rate, or train in bf16 or fp32. The last finite checkpoint is kept.",
        ExitCode.NON_FINITE,
    ),
    "cuda_oom": ErrorText(
        "The GPU ran out of memory at step {step}.",
        "Halve the micro-batch (and double the accumulation), shorten the maximum length, or use QLoRA.",
        ExitCode.CUDA_OOM,
    ),
    "host_oom": ErrorText("The machine ran out of memory.", "Halve the micro-batch or shorten the maximum length.", ExitCode.INTERNAL),
    "disk_full": ErrorText(
        "The disk is full: {path} could not be written.", "Free some space, then resume: the last checkpoint is intact.", ExitCode.DISK_FULL
    ),
    "download": ErrorText("The download failed: {reason}.", "Check the name, the network and the token, then try again."),
    "preempted": ErrorText("Stopped on request after step {step}; a checkpoint was written.", "Resume to continue.", ExitCode.PREEMPTED),
    "internal": ErrorText("Something in Graft failed: {reason}.", "The log names the place; please report it.", ExitCode.INTERNAL),
}


class GraftError(Exception):
    """An error with a stable code of `CATALOGUE`.

    `where` says the place in the user's own terms: `{"file": ..., "line": ..., "column": ..., "row": ..., "field": ...}`,
    each key optional.
    """

    def __init__(self, code: str, /, *, where: dict[str, Any] | None = None, **blanks: Any) -> None:
        text = CATALOGUE[code]
        self.code = code
        self.exit_code = text.exit_code
        self.message = text.message.format(**blanks)
        self.remedy = text.remedy.format(**blanks)
        self.where = where or {}
        super().__init__(self.message)

    def to_json(self) -> dict[str, Any]:
        """The error as it crosses a process: code, message, remedy, where."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, "where": self.where}


class UserError(GraftError):
    """What the user gave cannot be used; nothing is broken."""
