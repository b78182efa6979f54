"""Greedy answers in batches, through the model's own `generate` and its key-value cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from jobs.models.attention import plain_inference

# Tokens of key-value cache that a batch may take, padding included: bounds the memory whatever the lengths are.
CACHE_TOKENS = 16_384
MAX_ROWS = 64


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The greedy answer to each prompt (token ids), as text without special tokens, in the order given.

    Prompts of like length share a batch, padded on the left; a batch ends when all its rows have, at an end-of-sequence token of the
    tokenizer or of the model's generation config. The model's own sampling settings and penalties are not applied: the answers are
    the same each time. `progress(done, total)` is called after each batch.
    """
    from transformers import GenerationConfig

    answers: dict[int, str] = {}
    stop = stop_tokens(model, tokenizer)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0,
        eos_token_id=stop, pad_token_id=stop[0], use_cache=True,
    )  # fmt: skip
    with plain_inference(model), torch.no_grad():
        for batch in _batches(prompts, max_new_tokens):
            inputs = _left_padded([prompts[index] for index in batch], stop[0], next(model.parameters()).device)
            output = model.generate(**inputs, generation_config=settings)
            new = output[:, inputs["input_ids"].shape[1] :]
            texts = tokenizer.batch_decode([_until(row, stop) for row in new.tolist()], skip_special_tokens=True)
            answers.update(zip(batch, texts, strict=True))
            if progress:
                progress(len(answers), len(prompts))
    return [answers[index] for index in range(len(prompts))]


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The ids at which an answer ends; the tokenizer's own end of sequence first."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    ids = dict.fromkeys([tokenizer.eos_token_id, *more])
    return [token for token in ids if token is not None]


def _batches(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> Iterator[list[int]]:
    """Indices of prompts, longest first (a batch that does not fit in memory then fails at once, not at the end)."""
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    while order:
        rows = max(1, min(MAX_ROWS, CACHE_TOKENS // (len(prompts[order[0]]) + max_new_tokens)))
        yield order[:rows]
        order = order[rows:]


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both (rows, longest). The mask comes from the lengths: the padding id may be a real token too."""
    longest = max(len(row) for row in rows)
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _until(row: list[int], stop: list[int]) -> list[int]:
    ends = [place for place, token in enumerate(row) if token in stop]
    return row[: ends[0]] if ends else row
