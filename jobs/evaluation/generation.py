"""Answers in batches, through the model's own `generate` and its key-value cache: greedy, or drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from jobs.evaluation.likelihood import known_positions
from jobs.models.attention import plain_inference
from jobs.models.virtual import virtual_tokens

# Tokens of key-value cache that a batch may take, padding included: bounds the memory whatever the lengths are.
CACHE_TOKENS = 16_384
MAX_ROWS = 64


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: the likeliest at temperature 0, else drawn from the whole distribution, from `seed` on."""

    temperature: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """An answer as text without special tokens, its length in tokens, and whether the model ended it itself."""

    text: str
    tokens: int
    finished: bool


GREEDY = Sampling()


def generate(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """The greedy answer to each prompt (token ids), as text, in the order given; see `answers`."""
    return [answer.text for answer in answers(model, tokenizer, prompts, max_new_tokens=max_new_tokens, progress=progress)]


def answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    streamer: Any = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Answer]:
    """The answer to each prompt (token ids), in the order given.

    Prompts of like length share a batch, padded on the left (with virtual tokens only those of one length: PEFT counts positions through
    the padding that lies between the two); a batch ends when all its rows have, at an end-of-sequence token of the
    tokenizer or of the model's generation config. The model's own sampling settings and penalties are not applied: the answers are
    the same each time. A prompt that leaves no room for the answer within the positions that the model knows loses its beginning.
    `streamer`, for one prompt, is one of transformers'. `progress(done, total)` is called after each batch.
    """
    found: dict[int, Answer] = {}
    stop = stop_tokens(model, tokenizer)
    settings = _settings(stop, max_new_tokens, sampling)
    # An encoder-decoder reads the prompt and writes into a row of its own, behind one token that begins it.
    reads = bool(getattr(model.config, "is_encoder_decoder", False))
    settings.decoder_start_token_id = model.config.decoder_start_token_id if reads else None
    positions = known_positions(model)
    room = max(1, positions - max_new_tokens) if positions else None
    with plain_inference(model), torch.no_grad(), torch.random.fork_rng(enabled=sampling.temperature > 0):
        if sampling.temperature > 0:
            torch.manual_seed(sampling.seed)
        fitted = [prompt[-room:] if room else prompt for prompt in prompts]
        for batch in _batches(fitted, max_new_tokens, alike=virtual_tokens(model) > 0):
            rows = [fitted[index] for index in batch]
            inputs = _left_padded(rows, stop[0], next(model.parameters()).device)
            output = model.generate(**inputs, generation_config=settings, streamer=streamer)
            new = [_until(row, stop) for row in output[:, 1 if reads else inputs["input_ids"].shape[1] :].tolist()]
            texts = tokenizer.batch_decode([ids for ids, _ in new], skip_special_tokens=True)
            written = [Answer(text, len(ids), ended) for text, (ids, ended) in zip(texts, new, strict=True)]
            found.update(zip(batch, written, strict=True))
            if progress:
                progress(len(found), len(prompts))
    return [found[index] for index in range(len(prompts))]


def _settings(stop: list[int], max_new_tokens: int, sampling: Sampling) -> Any:
    from transformers import GenerationConfig

    drawn: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        drawn = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": 1.0}
    return GenerationConfig(
        max_new_tokens=max_new_tokens, num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0, eos_token_id=stop,
        pad_token_id=stop[0], use_cache=True, **drawn,
    )  # fmt: skip


def stop_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The ids at which an answer ends; the tokenizer's own end of sequence first."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    ids = dict.fromkeys([tokenizer.eos_token_id, *more])
    return [token for token in ids if token is not None]


def _batches(prompts: Sequence[Sequence[int]], max_new_tokens: int, *, alike: bool) -> Iterator[list[int]]:
    """Indices of prompts, longest first (a batch that does not fit in memory then fails at once, not at the end); `alike`: those of a batch
    have one length.
    """
    order = sorted(range(len(prompts)), key=lambda index: (-len(prompts[index]), index))
    while order:
        longest = len(prompts[order[0]])
        rows = max(1, min(MAX_ROWS, CACHE_TOKENS // (longest + max_new_tokens)))
        if alike:
            rows = next((place for place, index in enumerate(order[:rows]) if len(prompts[index]) < longest), rows)
        yield order[:rows]
        order = order[rows:]


def _left_padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, both (rows, longest). The mask comes from the lengths: the padding id may be a real token too."""
    longest = max(len(row) for row in rows)
    ids = [[pad] * (longest - len(row)) + list(row) for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return {"input_ids": torch.tensor(ids, device=device), "attention_mask": torch.tensor(mask, device=device)}


def _until(row: list[int], stop: list[int]) -> tuple[list[int], bool]:
    """The ids before the end, and whether there is one."""
    ends = [place for place, token in enumerate(row) if token in stop]
    return (row[: ends[0]], True) if ends else (row, False)
