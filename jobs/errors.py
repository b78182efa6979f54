"""Errors with stable codes, and the exit codes of `python -m jobs`.

Two families: `UserError` (something the user gave cannot be used: exit 78 and a remedy) and every other `GraftError`
(the machine, the disk, the numbers). The words of each code live in `CATALOGUE` alone; callers fill in the blanks.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self


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
    "request_invalid": ErrorText("The request cannot be read: {reason}.", "Correct it, and send it again."),
    # -- files and data ------------------------------------------------------------------------------------------
    "file_missing": ErrorText("There is no file at {path}.", "Check the path."),
    "file_empty": ErrorText("The file is empty.", "Choose a file with at least one row."),
    "file_kind_unknown": ErrorText(
        "This is not a file of text rows: {reason}.",
        "Save the data as JSONL, JSON, CSV, TSV, Parquet or plain text (each may be gzipped) and upload that.",
    ),
    "file_foreign": ErrorText("This is {what}, not a file of text rows.", "{remedy}"),
    "file_damaged": ErrorText("The {what} file is damaged or incomplete: {reason}.", "Download or export it again, then upload it anew."),
    "file_too_large": ErrorText("The file unpacks to more than {limit}.", "Split it, or ask your administrator to raise the limit."),
    "file_ratio": ErrorText(
        "The file unpacks to more than {limit} times its own size, as no real text does.", "Unpack it yourself and upload what is inside."
    ),
    "rows_too_many": ErrorText("The file has more than {limit} rows.", "Split it, or ask your administrator to raise the limit."),
    "columns_too_many": ErrorText("The table has {found} columns; at most {limit} are read.", "Keep the columns that you train on."),
    "encoding_unknown": ErrorText(
        "The text is neither UTF-8 nor UTF-16, and byte {offset} (line {line}) does not fit any encoding we recognise.",
        "Save the file as UTF-8.",
    ),
    # Of one row; `place` is "Line 12" or, where the file has no lines of its own, "Row 12".
    "json_invalid": ErrorText("{place}, column {column}: not valid JSON ({reason}).", "Correct the place named, or skip the row."),
    "json_not_object": ErrorText("{place}: expected a JSON object, found {found}.", "Each row must be an object: {{...}}."),
    "json_too_deep": ErrorText("{place}: brackets are nested more than {limit} deep.", "Flatten the row, or skip it."),
    "json_duplicate_key": ErrorText("{place}: the key '{key}' stands twice in one object.", "Remove one of the two, or skip the row."),
    "json_number": ErrorText("{place}: {found} is no number that JSON knows.", "Write a finite number or null, or skip the row."),
    "text_broken": ErrorText("{place}: {what}.", "Export the text anew as UTF-8, or skip the row."),
    "line_too_long": ErrorText("{place} is longer than {limit}.", "Split the row, or skip it."),
    "table_columns": ErrorText(
        "{place}: {found} cells, but the table has {expected} columns.",
        "Add or remove cells; put quotes around a text that holds the separator. Or skip the row.",
    ),
    "table_quote": ErrorText("{place}: {reason}.", "Close the quote, and write a quote inside a quoted text twice. Or skip the row."),
    "field_missing": ErrorText("{place}: '{field}' is missing.", "Fill it in, choose another column, or skip the row."),
    "field_type": ErrorText("{place}: '{field}' holds {found}, not text.", "Write it as text, choose another column, or skip the row."),
    "text_empty": ErrorText("{place}: '{field}' is empty.", "Fill it in, or skip the row."),
    "answer_empty": ErrorText("{place}: the answer ('{field}') is empty, so there is nothing to learn.", "Fill it in, or skip the row."),
    "choices_wrong": ErrorText(
        "{place}: '{field}' {reason}.",
        "Give a list of at least two different answer texts, one of them the expected answer, or skip the row.",
    ),
    "number_wrong": ErrorText(
        "{place}: '{field}' holds {found}, not a finite number.", "Write a number, choose another column, or skip the row."
    ),
    "answers_wrong": ErrorText(
        "{place}: '{field}' {reason}.",
        "Give the answers as SQuAD does: each with its text and answer_start, the character of the context at which it begins (from 0); an "
        "empty list where there is none. Or skip the row.",
    ),
    "choice_wrong": ErrorText(
        "{place}: '{field}' holds {found}, which is none of the {count} choices.",
        "Give the number of the right choice counted from 0, its letter (A is the first), or its text, or skip the row.",
    ),
    "row_unfit": ErrorText("{place}: {reason}, as the task {task} needs.", "Correct the row, or skip it."),
    "label_unknown": ErrorText(
        "{place}: the label '{label}' stands in no training row, so it cannot be learned.", "Correct it, or add training rows with it."
    ),
    "label_foreign": ErrorText(
        "{place}: the label '{label}' is none of those that the model tells apart: {known}.",
        "Correct it, or take rows of the data that the model was trained for.",
    ),
    "labels_wrong": ErrorText(
        "The training rows have {count}; a classification needs from 2 to {most}.", "Check which column holds the label."
    ),
    "columns_unfit": ErrorText(
        "The columns {columns} are not those of the task {task}, which needs {needed}.", "Map the columns by hand, or choose another task."
    ),
    "chat_message": ErrorText("{place}: message {number} {reason}.", 'Write it as {{"role": "user", "content": "..."}}, or skip the row.'),
    "chat_role": ErrorText("{place}: message {number} has the role '{role}'.", "Use system, user or assistant, or skip the row."),
    "chat_tools": ErrorText(
        "{place}: the row uses tools ({found}).", "Only text turns can be trained on yet: remove the tools or skip the row."
    ),
    "chat_no_answer": ErrorText("{place}: there is no answer of the assistant to learn from.", "Add one, or skip the row."),
    # Said, not refused.
    "encoding_guessed": ErrorText(
        "The file is not UTF-8; it was read as {encoding}, which is a guess.",
        "Look at the accented letters in the preview, or save as UTF-8.",
    ),
    "newline_mixed": ErrorText("The file mixes kinds of line ends ({found}).", "Nothing, if the rows in the preview are right."),
    "header_missing": ErrorText(
        "The table seems to have no header row; the columns are called {columns}.", "Add a first row with the names if this is wrong."
    ),
    "header_renamed": ErrorText("Columns without a name, or with one that is taken, are called {columns}.", "Name them in the file."),
    "lines_skipped": ErrorText("The first {count} lines before the header were left out.", "Remove them from the file if that is wrong."),
    "chat_no_question": ErrorText("{place}: no user turn before the answer.", "Nothing, if that is meant; some chat templates refuse it."),
    "chat_order": ErrorText("{place}: two {role} turns in a row.", "Nothing, if that is meant; some chat templates refuse it."),
    "duplicate_rows": ErrorText(
        "Exact copies of rows that stand before them in {split}: {count}.", "Remove the copies, unless they are meant to weigh more."
    ),
    "split_overlap": ErrorText(
        "Rows of {split} that also stand in {other}: {count}. The result on {split} will look better than it is.",
        "Remove them from one of the two.",
    ),
    "label_single": ErrorText("Every row has the same label, '{label}'.", "Add rows with other labels: there is nothing to tell apart."),
    "label_alike": ErrorText("The labels {labels} differ in capitals or spaces only.", "Write them alike, or they are learned apart."),
    "preference_pairs": ErrorText(
        "The columns 'chosen' and 'rejected' hold pairs of a better and a worse answer; one answer a row is trained on.",
        "Choose the layout prompt and completion, with 'chosen' as the answer, where 'chosen' is text.",
    ),
    "unwanted_answers": ErrorText(
        "The column '{name}' seems to mark {what}; every answer would be trained on.",
        "Remove the rows that the model should not learn from.",
    ),
    "row_unknown": ErrorText("The file has no row {number}.", "Choose a row that it has."),
    "all_masked": ErrorText(
        "No row has anything to learn: all {count} rows lack an answer of the assistant that counts.",
        "Give each conversation an answer whose weight is not 0, or choose another layout.",
    ),
    "all_empty": ErrorText("No row has anything to learn: the answer of all {count} rows is empty.", "Choose the column with the answers."),
    "one_class": ErrorText(
        "Every row has the same label, '{label}': a model that always says it is right already.", "Upload rows with at least two labels."
    ),
    "no_rows": ErrorText("No usable row was found.", "Check the mapping of the columns, or choose another file."),
    "mapping_invalid": ErrorText("The mapping does not fit the file: {reason}.", "Choose the columns again."),
    "format_unknown": ErrorText(
        "None of the known layouts fits the columns {columns}.", "Map the columns by hand: which one is the input, which one the answer?"
    ),
    "template_refused": ErrorText(
        "Row {row}: the model's chat template cannot render this chat: {reason}.",
        "Change the order or the roles of the messages (most models want user and assistant by turns), or choose another base model.",
    ),
    "nothing_to_learn": ErrorText(
        "No row leaves a token to learn from at a maximum length of {max_length} tokens.",
        "Raise the maximum length, or check that the answers are not empty.",
    ),
    # -- people and teams ----------------------------------------------------------------------------------------
    "team_name_taken": ErrorText("There is already a team named '{name}'.", "Choose another name."),
    "invitation_invalid": ErrorText(
        "This invitation is unknown, used or expired.", "Ask a maintainer of the team for a new link; each works once, for 72 hours."
    ),
    "role_too_high": ErrorText("{who} is {role}, above your own role in this team.", "Ask an owner of the team to do this."),
    "last_owner": ErrorText("{who} is the last owner of the team.", "Make somebody else owner first."),
    "already_owner": ErrorText("{who} is an owner of the team already.", "Choose another member, or change your own role instead."),
    "two_factor_first": ErrorText("You have no second factor yourself, and would be locked out.", "Set one up in your account first."),
    "team_busy": ErrorText("Runs of the team that have not ended: {count}.", "Wait for them or cancel them, then delete the team."),
    "already_member": ErrorText("{who} is already in this team.", "Change the role on the members page instead."),
    # -- uploads and datasets ------------------------------------------------------------------------------------
    "upload_too_large": ErrorText("The file has {bytes} bytes; this site takes at most {limit}.", "Gzip the file, or split it."),
    "upload_incomplete": ErrorText(
        "The upload of '{name}' is not complete.", "Choose the file again: the upload goes on where it stopped."
    ),
    "upload_unknown": ErrorText("The uploaded file is no longer there.", "Upload it again."),
    "dataset_name_taken": ErrorText(
        "This team already has a dataset named '{name}'.", "Choose another name, or add a version to that dataset."
    ),
    "version_fixed": ErrorText("This dataset version is {state} and can no longer change.", "Make a new version of the dataset."),
    "hub_name": ErrorText("{value} is no {what} on the Hugging Face Hub.", "Write it as the Hub does, such as HuggingFaceTB/SmolLM2-135M."),
    "model_exists": ErrorText("This team already has the model '{name}'.", "Open it in the list, or name another revision."),
    "model_name_taken": ErrorText("This team already has a model called '{name}'.", "Choose another name."),
    "model_folder": ErrorText(
        "The folder {path} cannot be taken: {reason}.", "Choose one of the list; an administrator of the site says which folders are open."
    ),
    "model_files": ErrorText(
        "{reason}.", "Give config.json, tokenizer.json and its settings, and *.safetensors: side by side, or as one zip archive."
    ),
    "model_used": ErrorText(
        "{name} cannot be deleted: runs that start from it: {count}.",
        "Delete those runs first, or archive the model: lists then leave it out.",
    ),
    "archive_refused": ErrorText(
        "The archive is not taken: {reason}.", "Pack config.json, the tokenizer's files and *.safetensors into one zip, and nothing else."
    ),
    "artifact_unfit": ErrorText("{name} cannot become a base model: {reason}.", "Choose a merged or fully trained model of a run."),
    "artifact_used": ErrorText("{name} cannot be deleted: {run} has not ended and builds on it.", "Wait for that run, or cancel it."),
    # -- the box: a file from a user is read in a bounded child process ------------------------------------------
    "box_memory": ErrorText(
        "Reading the file took more than {limit} of memory, so it was stopped.", "Split the file, or check that it is what it seems."
    ),
    "box_time": ErrorText(
        "Reading the file took longer than {limit}, so it was stopped.", "Split the file, or check that it is what it seems."
    ),
    "box_output": ErrorText(
        "Reading the file produced more than {limit}, so it was stopped.", "Split the file, or check that it is what it seems."
    ),
    "box_busy": ErrorText("Too many files are being read at once.", "Try again in a minute."),
    "box_crashed": ErrorText("The reader crashed on this file ({reason}).", "Check that the file is what it seems; save it anew as JSONL."),
    # -- model, method, device -----------------------------------------------------------------------------------
    "model_missing": ErrorText("There is no model at {path}.", "Add the base model again."),
    "hub_owner": ErrorText(
        "{name} is not taken: the administrator allows models of {known} alone.", "Choose one of theirs, or ask the administrator for it."
    ),
    "prompt_too_long": ErrorText("The prompt has {tokens} tokens; the model knows {limit} positions.", "Ask with less text."),
    "serving_memory": ErrorText(
        "There was not enough memory to answer.", "Ask again with less text, or fewer questions at once.", ExitCode.INTERNAL
    ),
    "serving_failed": ErrorText("The answer could not be computed: {reason}.", "Ask again; the server's log has more.", ExitCode.INTERNAL),
    "model_unusable": ErrorText("The model cannot be used: {reason}.", "Choose another base model."),
    "model_writes_not": ErrorText(
        "This model does not write: {what}.", "Measure it on rows with `python -m jobs evaluate`, whose samples show what it says of them."
    ),
    "adapter_unusable": ErrorText(
        "The adapter in {path} cannot be used: {reason}.", "Give a folder that peft has saved, made for this very base model."
    ),
    "validation_needed": ErrorText(
        "{field} needs validation rows, and there are none.", "Give a validation file, or raise the validation share; or switch it off."
    ),
    "method_unknown": ErrorText("There is no method '{method}'.", "Known methods: {known}."),
    "method_setting": ErrorText("Method {method}: setting '{setting}' {reason}.", "Give a value that is allowed."),
    "device_cannot": ErrorText("{what} cannot run on this device: {reason}.", "{instead}"),
    "task_cannot": ErrorText(
        "{method} does not train for the task {task}; it trains for: {known}.", "Choose another method, or another task for the run."
    ),
    "task_unfit": ErrorText("A run cannot train for the task {task}: {reason}.", "Choose another task, or another base model or dataset."),
    "checkpointing_cannot": ErrorText(
        "{method} does not work with gradient checkpointing: what it learns lies in the cache, which checkpointing leaves out.",
        "Switch gradient checkpointing off (a smaller micro-batch saves memory too), or choose another method.",
    ),
    "model_task": ErrorText(
        "A {architecture} cannot be trained for the task {task}; it can be trained for: {known}.",
        "Choose another base model, or another task for the run.",
    ),
    "adapters_needed": ErrorText(
        "{method} builds on at least {least} finished adapters ({kinds}); {given} given.",
        "Choose the finished runs that it is to build on.",
    ),
    "adapters_unwanted": ErrorText("{method} builds on no finished adapters.", "Leave them out, or choose a method that does."),
    "adapter_unfit": ErrorText(
        "{method} cannot build on the run {run}: its adapter is of another base than {model}, or of another kind.", "Choose other runs."
    ),
    "composition_unfit": ErrorText("These adapters cannot be combined: {reason}.", "{instead}"),
    "method_cannot": ErrorText("{method} cannot train this model: {reason}.", "{instead}"),
    "resume_mismatch": ErrorText(
        "The checkpoint {path} belongs to another run: not the same {what}.", "Resume with the spec and the data that it was made with."
    ),
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
    "memory_spent": ErrorText(
        "{reason} Its micro-batch had been halved {count} times, down to {batches}.",
        "Shorten the maximum length, switch gradient checkpointing on, or choose QLoRA, a smaller base model or a device with more memory.",
        ExitCode.INTERNAL,
    ),
    "disk_full": ErrorText(
        "The disk is full: {path} could not be written.", "Free some space, then resume: the last checkpoint is intact.", ExitCode.DISK_FULL
    ),
    "disk_space": ErrorText(
        "The result needs {needed} bytes, and {free} are free at {path}.", "Free some space, or choose another folder.", ExitCode.DISK_FULL
    ),
    "download": ErrorText("The download failed: {reason}.", "Check the name, the network and the token, then try again."),
    "hub_unreachable": ErrorText(
        "The hub at {endpoint} cannot be reached from this machine ({reason}).",
        "Try again: what has come is kept. Behind a proxy, set HTTPS_PROXY for the workers; without a way out, add the model from a folder "
        "or by upload.",
    ),
    "merge_refused": ErrorText(
        "The exported model is not offered: {reason}.",
        "The adapter, where there is one, is intact: load it on top of the base model.",
        ExitCode.INTERNAL,
    ),
    "merge_impossible": ErrorText(
        "The adapter cannot be merged into this base: {reason}.",
        "Check that it was trained on this very base; some kinds of adapters can only be loaded on top of theirs.",
    ),
    "folder_taken": ErrorText("{path} exists and is not an empty folder.", "Name a folder that does not exist yet."),
    "preempted": ErrorText("Stopped on request after step {step}.", "Resume to continue.", ExitCode.PREEMPTED),
    "stalled": ErrorText(
        "Nothing was heard from the training for {seconds} seconds, and it was stopped.",
        "Try again: it goes on from the last checkpoint. If it stalls at the same place, look at the log.",
        ExitCode.INTERNAL,
    ),
    "crashed": ErrorText(
        "The training process was killed by signal {signal}.",
        "Try again: it goes on from the last checkpoint. If it happens again, please report it with the log.",
        ExitCode.INTERNAL,
    ),
    "infra": ErrorText(
        "The worker was lost {count} times: {reason}.", "Look at the workers, then try again from the last checkpoint.", ExitCode.INTERNAL
    ),
    "artifact_damaged": ErrorText(
        "'{name}' is not as it was written: {reason}.", "Look at the disk, then try again from the last checkpoint.", ExitCode.INTERNAL
    ),
    # -- what a person asks of a run -------------------------------------------------------------------------------
    "run_name": ErrorText("A run needs a name of at most {limit} characters.", "Give it one."),
    "tag_name": ErrorText(
        "A tag is one word of at most 40 letters, digits and . + / - _: {name}.", "Write one or several, with spaces between them."
    ),
    "view_name": ErrorText("A view needs a name of at most {limit} characters.", "Give it one."),
    "view_limit": ErrorText("There are {limit} views of yours already.", "Delete one that you do not need."),
    # -- what a team may use; `wanted` is what it asked for, on top of what is `used`
    "quota_storage": ErrorText(
        "The team keeps {used} of the {limit} that it may keep; {wanted} more do not fit.",
        "Delete what you need no longer (most is taken by {largest}: {largest_bytes}), or ask an administrator of the site for more.",
    ),
    "quota_queued": ErrorText(
        "{used} runs of the team wait already; it may have {limit} waiting.",
        "Wait until one has started, cancel one, or ask an administrator of the site for a higher limit.",
    ),
    "quota_hours": ErrorText(
        "The team has used {used} of its {limit} device hours of this month.",
        "Wait for the next month (UTC), or ask an administrator of the site for a higher limit.",
    ),
    # -- notices
    "webhook_address": ErrorText("The address cannot be called: {reason}", "Give the https address of a service that takes webhooks."),
    "webhooks_too_many": ErrorText("The team has {limit} webhooks, as many as it may have.", "Delete one first."),
    "run_state": ErrorText("{action} is not possible: the run is {state}.", "Reload the page to see what is."),
    "dataset_not_ready": ErrorText("The dataset {name} is not ready to be trained on.", "Validate it first, or choose another."),
    "model_not_ready": ErrorText("The base model {name} is not ready.", "Wait until it is downloaded, or choose another."),
    "no_worker": ErrorText(
        "No worker for trainings has been seen, so that nothing is known of its memory.", "Start one (`make run` does), then ask again."
    ),
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

    @classmethod
    def worded(cls, code: str, message: str, remedy: str, *, where: dict[str, Any]) -> Self:
        """An error of `code` whose words were filled in before: a row's problem that becomes an exception."""
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        error.code, error.message, error.remedy, error.where = code, message, remedy, where
        error.exit_code = CATALOGUE[code].exit_code
        return error

    def to_json(self) -> dict[str, Any]:
        """The error as it crosses a process: code, message, remedy, where."""
        return {"code": self.code, "message": self.message, "remedy": self.remedy, "where": self.where}


class UserError(GraftError):
    """What the user gave cannot be used; nothing is broken."""
