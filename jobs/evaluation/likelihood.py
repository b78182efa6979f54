"""How likely a model finds each of several continuations of a prompt, with the prompt computed once for all of them.

The continuations of a prompt are laid behind it in one row. Each sees the prompt and itself, by a mask of its own, and its positions start
anew after the prompt. Where an architecture does not keep to such a mask (state-space and convolution layers, position codes that are
part of the mask, windows shorter than the row, virtual tokens), each continuation gets a row of its own: the same figures, more slowly.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from jobs.models.attention import plain_inference
from jobs.models.virtual import virtual_tokens

# Tokens of a batch, padding included.
BATCH_TOKENS = 2048
# Bytes of a batch's logits in float32: bounds the memory whatever the vocabulary is.
LOGIT_BYTES = 2**28
# How far the shared way may be from the plain one, as a share of the log-likelihood: rounding of another order of sums.
_AGREEMENT = {torch.float32: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.01}
# What the continuations beside it may move a log-likelihood by: nothing, but for the last bits.
_MOVEMENT = 1e-5


@dataclass(frozen=True)
class Asked:
    """Token ids of a prompt (at least one) and of its continuations (each at least one)."""

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]


def log_likelihoods(model: Any, asked: Sequence[Asked], progress: Callable[[int, int], None] | None = None) -> list[list[float]]:
    """For each prompt the summed log-likelihood (nats) of each of its continuations, in the order given.

    A prompt that leaves no room for its continuations within the positions that the model knows loses its beginning.
    `progress(done, total)` counts rows of a batch. The model computes in its own dtype, or under the caller's autocast.
    """
    if not asked:
        return []
    with plain_inference(model), torch.no_grad():
        fitted = [_fitted(one, known_positions(model)) for one in asked]
        shares = _shares(model, fitted)
        lines: dict[bool, list[_Line]] = {True: [], False: []}
        for number, one in enumerate(fitted):
            if shares and _within_window(model, one):
                lines[True].append(_line(number, one))
            else:
                lines[False] += _lines_alone(number, one)
        found = [[0.0] * len(one.continuations) for one in asked]
        done, total = 0, len(lines[True]) + len(lines[False])
        for shared, kind in lines.items():
            for batch in _batches(kind, _config(model).vocab_size):
                for line, sums in zip(batch, _run(model, batch, shared=shared), strict=True):
                    for place, value in zip(line.owners, sums, strict=True):
                        found[line.number][place] += value
                done += len(batch)
                if progress:
                    progress(done, total)
    return found


@dataclass(frozen=True)
class _Line:
    """One row of a batch. `groups`: 0 for the prompt, else which continuation a token belongs to. `targets[i]` is predicted at
    `places[i]` and counts for continuation `owners[i]` of prompt `number`.
    """

    number: int
    ids: list[int]
    positions: list[int]
    groups: list[int]
    places: list[int]
    targets: list[int]
    owners: list[int]


def _line(number: int, one: Asked) -> _Line:
    """A prompt with all its continuations behind it; the last token of each is predicted but never read."""
    length = len(one.prompt)
    line = _Line(number, list(one.prompt), list(range(length)), [0] * length, [], [], [])
    for group, tokens in enumerate(one.continuations):
        start = len(line.ids)
        line.places.extend([length - 1, *range(start, start + len(tokens) - 1)])
        line.targets.extend(tokens)
        line.owners.extend([group] * len(tokens))
        line.ids.extend(tokens[:-1])
        line.positions.extend(range(length, length + len(tokens) - 1))
        line.groups.extend([group + 1] * (len(tokens) - 1))
    return line


def _lines_alone(number: int, one: Asked) -> list[_Line]:
    """A row for each continuation."""
    lines = [_line(number, Asked(one.prompt, [tokens])) for tokens in one.continuations]
    return [replace(line, owners=[place] * len(line.owners)) for place, line in enumerate(lines)]


def _batches(lines: Sequence[_Line], vocabulary: int) -> Iterator[list[_Line]]:
    """Lines of like length together, longest first, within `BATCH_TOKENS` and `LOGIT_BYTES` (but for a line that is longer by itself)."""
    batch: list[_Line] = []
    for line in sorted(lines, key=lambda line: (-len(line.ids), line.places[0])):
        grown = [*batch, line]
        logits = len(grown) * _kept(grown) * vocabulary * 4
        if batch and (len(grown) * len(grown[0].ids) > BATCH_TOKENS or logits > LOGIT_BYTES):
            yield batch
            grown = [line]
        batch = grown
    if batch:
        yield batch


def _kept(batch: Sequence[_Line]) -> int:
    """How many places from the end on need logits: counted from the end, since virtual tokens may come before the row."""
    return max(len(line.ids) for line in batch) - min(line.places[0] for line in batch)


def _run(model: Any, batch: Sequence[_Line], *, shared: bool) -> list[list[float]]:
    """The log-likelihood of each target of each line."""
    longest, kept = max(len(line.ids) for line in batch), _kept(batch)
    device = next(model.parameters()).device
    inputs: dict[str, Any] = {"input_ids": _padded([line.ids for line in batch], 0, device), "use_cache": False}
    if shared:
        inputs["position_ids"] = _padded([line.positions for line in batch], 0, device)
        inputs["attention_mask"] = _mask(_padded([line.groups for line in batch], -1, device), model)
    else:
        inputs["attention_mask"] = _padded([[1] * len(line.ids) for line in batch], 0, device)
    if "logits_to_keep" in inspect.signature(_base(model).forward).parameters:
        inputs["logits_to_keep"] = kept
    logits: Tensor = model(**inputs).logits[:, -kept:]
    found = []
    for row, line in zip(logits, batch, strict=True):
        picked = row[torch.tensor(line.places, device=device) - (longest - kept)].float()
        chosen = picked.gather(1, torch.tensor(line.targets, device=device)[:, None])[:, 0]
        found.append((chosen - picked.logsumexp(-1)).tolist())
    return found


def _padded(rows: Sequence[Sequence[int]], filler: int, device: torch.device) -> Tensor:
    """int64 [rows, longest], filled up on the right, where nothing causal looks."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (longest - len(row))] for row in rows], device=device)


def _mask(groups: Tensor, model: Any) -> Tensor:
    """[rows, 1, tokens, tokens]: every token sees the prompt and, of the rest, its own continuation up to itself.

    Bool for SDPA; for attention written out, what is added to the scores.
    """
    length = groups.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=groups.device).tril()
    keys, queries = groups[:, None, None, :], groups[:, None, :, None]
    seen = causal & ((keys == 0) | (keys == queries))
    if _base(model).config._attn_implementation == "sdpa":
        return seen
    dtype = _base(model).dtype
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


def _shares(model: Any, asked: Sequence[Asked]) -> bool:
    """Whether this model keeps to the mask, tried on a short prompt with continuations that could see each other."""
    if virtual_tokens(model):
        return False
    telling = [one for one in asked if len(one.continuations) > 1 and _within_window(model, one)]
    if not telling:
        return False
    one = min(telling, key=lambda one: (-sum(len(tokens) > 1 for tokens in one.continuations[:3]), len(one.prompt)))
    one = Asked(one.prompt, sorted(one.continuations, key=len, reverse=True))
    try:
        together, poisoned = _sums(model, one), _sums(model, _poisoned(one, _config(model).vocab_size))
    except (ValueError, RuntimeError, NotImplementedError, AttributeError, TypeError):
        return False  # an architecture that takes no mask of this shape
    if any(abs(a - b) > _MOVEMENT * (1 + abs(a)) for a, b in list(zip(together, poisoned, strict=True))[1:]):
        return False
    alone = [sum(values) for values in _run(model, _lines_alone(0, one), shared=False)]
    dtype = torch.get_autocast_dtype(_device_kind(model)) if torch.is_autocast_enabled(_device_kind(model)) else _base(model).dtype
    return all(abs(a - b) <= _AGREEMENT[dtype] * (1 + abs(b)) for a, b in zip(together, alone, strict=True))


def _sums(model: Any, one: Asked) -> list[float]:
    line = _line(0, one)
    sums = [0.0] * len(one.continuations)
    for place, value in zip(line.owners, _run(model, [line], shared=True)[0], strict=True):
        sums[place] += value
    return sums


def _poisoned(one: Asked, vocabulary: int) -> Asked:
    """The same with every token of the first continuation replaced by its neighbour in the vocabulary."""
    first, *rest = one.continuations
    return Asked(one.prompt, [[(token + 1) % vocabulary for token in first], *rest])


def _fitted(one: Asked, positions: int | None) -> Asked:
    """The end of the prompt that fits before the longest continuation."""
    if positions is None:
        return one
    room = max(1, positions - max(len(tokens) for tokens in one.continuations))
    return Asked(one.prompt[-room:], one.continuations)


def _within_window(model: Any, one: Asked) -> bool:
    """Whether the row is shorter than the window that an attention layer of the model looks back; a mask of our own has no window."""
    config = _config(model)
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size")]
    length = len(one.prompt) + max(len(tokens) for tokens in one.continuations)
    return all(length <= window for window in windows if window)


def _base(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _config(model: Any) -> Any:
    return _base(model).config.get_text_config()


def known_positions(model: Any) -> int | None:
    """How many positions the model knows, where its config says so, less those that virtual tokens take."""
    positions = getattr(_config(model), "max_position_embeddings", None)
    return None if positions is None else max(1, positions - virtual_tokens(model))


def _device_kind(model: Any) -> str:
    return str(next(model.parameters()).device.type)
