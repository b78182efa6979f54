"""`python -m jobs generate`: what a model answers, to one prompt as it is written, or to a file of prompts."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.commands.models import add_model_arguments, asked_head, open_asked_model, whole_number
from jobs.data.cells import joined
from jobs.data.convert import conversation
from jobs.data.rows import Problem, Row, kind_of, problem
from jobs.data.sources import open_rows
from jobs.errors import UserError
from jobs.models.heads import CAUSAL

if TYPE_CHECKING:
    from jobs.models.opened import Opened

HELP = "let a model answer a prompt or a file of prompts"
# New tokens from which an adapter is added into the weights: well above what that takes (docs/evaluation.md), for it also rounds.
MERGE_FROM_TOKENS = 64
Prompt = str | list[dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which prompts, how to answer."""
    add_model_arguments(parser)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", metavar="TEXT", help="one prompt; the answer appears as it is written")
    asked.add_argument(
        "--file", type=Path, metavar="FILE", help="rows with `prompt` (a text) or `messages` (a chat; its last answer is left out)"
    )
    parser.add_argument("--max-new-tokens", type=whole_number, default=256, metavar="N", help="longest answer (%(default)s)")
    parser.add_argument("--temperature", type=_temperature, default=0.0, metavar="T", help="0: the likeliest token, always (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what is drawn at a temperature above 0 (%(default)s)")
    parser.add_argument("--raw", action="store_true", help="the prompt as it stands, without the model's chat template")
    parser.add_argument(
        "--merge",
        action=argparse.BooleanOptionalAction,
        help=f"add the adapter into the weights in memory, for speed (without a word: from {MERGE_FROM_TOKENS} tokens asked for on)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the answers; with `--json` one object: `answers` (`prompt answer tokens finished`), `merged`, `precision`, `seconds`,
    `tokens_per_second` (of new tokens, prompts included in the time).
    """
    prompts: list[Prompt] = [arguments.prompt] if arguments.prompt is not None else read_prompts(arguments.file)
    if arguments.raw and any(isinstance(prompt, list) for prompt in prompts):
        raise UserError("request_invalid", reason="--raw takes texts, and the file holds chats", where={"field": "raw"})
    head = asked_head(arguments)
    if not head.stands_alone:
        raise UserError("model_writes_not", what=f"it is loaded as {head.auto}", where={"field": "model"})
    opened = open_asked_model(arguments)
    asked = prompt_ids if head == CAUSAL else text_ids
    ids = [asked(prompt, opened.tokenizer, raw=arguments.raw) for prompt in prompts]
    opened, merged = _merged(opened, arguments, arguments.max_new_tokens * len(prompts))
    started = time.monotonic()
    streams = arguments.prompt is not None and not arguments.json
    found = _answers(opened, ids, arguments, streams=streams)
    seconds = time.monotonic() - started
    if arguments.json:
        body = [
            {"prompt": prompt, "answer": one.text, "tokens": one.tokens, "finished": one.finished}
            for prompt, one in zip(prompts, found, strict=True)
        ]
        rate = sum(one.tokens for one in found) / seconds
        facts = {"merged": merged, "precision": opened.precision, "seconds": round(seconds, 3), "tokens_per_second": round(rate, 2)}
        sys.stdout.write(json.dumps({"answers": body, **facts}, ensure_ascii=False) + "\n")
    elif not streams:
        for prompt, one in zip(prompts, found, strict=True):
            shown = prompt if isinstance(prompt, str) else prompt[-1]["content"]
            sys.stdout.write(f"> {shown}\n{one.text.strip()}\n\n")
    return 0


def read_prompts(path: Path) -> list[Prompt]:
    """The prompts of a file. Raises `UserError` with the line of the first row that holds none."""
    prompts: list[Prompt] = []
    for item in open_rows(path):
        prompt = _prompt(item) if isinstance(item, Row) else item
        if isinstance(prompt, Problem):
            raise prompt.to_error(str(path))
        prompts.append(prompt)
    return prompts


def _prompt(row: Row) -> Prompt | Problem:
    if row.value.get("messages") is not None:
        turns = conversation(row, "messages")
        if isinstance(turns, Problem):
            return turns
        asked = turns[:-1] if turns[-1]["role"] == "assistant" else turns
        return asked or problem("text_empty", row, field="messages")
    text = row.value.get("prompt")
    if text is None:
        return problem("field_missing", row, field="prompt")
    if not isinstance(text, str):
        return problem("field_type", row, field="prompt", found=kind_of(text))
    return text if text.strip() else problem("text_empty", row, field="prompt")


def prompt_ids(prompt: Prompt, tokenizer: Any, *, raw: bool) -> list[int]:
    """The prompt's token ids: through the chat template where there is one (a chat always, behind our own where there is none).

    The same ids as an evaluation gives a row with that question. Raises `UserError("template_refused")`.
    """
    from jinja2 import TemplateError

    from jobs.models.templates import FALLBACK_TEMPLATE

    if raw or (isinstance(prompt, str) and not tokenizer.chat_template):
        return list(tokenizer(prompt)["input_ids"])
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    template = tokenizer.chat_template or FALLBACK_TEMPLATE
    plain = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    try:
        text = tokenizer.apply_chat_template(plain, chat_template=template, tokenize=False, add_generation_prompt=True)
    except TemplateError as failure:
        raise UserError("template_refused", row=1, reason=str(failure)[:200]) from failure
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def text_ids(prompt: Prompt, tokenizer: Any, *, raw: bool) -> list[int]:
    """The prompt's token ids for an encoder-decoder, framed as in training; of a chat those of its turns. `raw` is the same."""
    del raw
    text = prompt if isinstance(prompt, str) else joined(*(turn["content"] for turn in prompt))
    return list(tokenizer(text)["input_ids"])


def _merged(opened: Opened, arguments: argparse.Namespace, tokens: int) -> tuple[Opened, bool]:
    """The model with its adapter added into the weights, where that is wanted and can be; and whether it was.

    An unmerged adapter costs a fifth (float32) to two fifths (bfloat16) of the speed. The sums are rounded to the weights' own dtype, so
    that in 16 bits an answer may now and then differ from what the unmerged adapter says, as it may with any merged model.
    """
    from dataclasses import replace

    from jobs.models.opened import mergeable

    wanted = arguments.merge if arguments.merge is not None else tokens >= MERGE_FROM_TOKENS
    if arguments.adapter is None or not wanted or not mergeable(opened.model):
        return opened, False
    if opened.precision != "float32":
        sys.stderr.write(f"The adapter was added into the weights, rounded to {opened.precision}; --no-merge keeps it apart.\n")
    return replace(opened, model=opened.model.merge_and_unload()), True


def _answers(opened: Opened, prompts: Sequence[Sequence[int]], arguments: argparse.Namespace, *, streams: bool) -> Any:
    from transformers import TextStreamer

    from jobs.evaluation.generation import Sampling, answers

    streamer = TextStreamer(opened.tokenizer, skip_prompt=True, skip_special_tokens=True) if streams else None
    with opened.computing():
        return answers(
            opened.model,
            opened.tokenizer,
            prompts,
            max_new_tokens=arguments.max_new_tokens,
            sampling=Sampling(arguments.temperature, arguments.seed),
            streamer=streamer,
        )


def _temperature(text: str) -> float:
    value = float(text)
    if not (0 <= value <= 100 and math.isfinite(value)):
        raise argparse.ArgumentTypeError("it must be a number from 0 to 100")
    return value
