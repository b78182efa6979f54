"""Several LoRA adapters as one, from their files into a new folder: no base model is loaded.

The rules are those of `peft.utils.merge_utils`. What surrounds them is ours, for PEFT's `add_weighted_adapter` takes over the first
adapter's scale (wrong for rsLoRA), forgets what is trained besides the factors, and decomposes dense matrices where thin ones do.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.composition.combinations import COMBINATIONS, Combination, unfit
from jobs.composition.parts import Part
from jobs.composition.spec import CompositionSpec
from jobs.export.adapter_file import PREFIX, AdapterFile
from jobs.export.shards import StoredTensor
from jobs.export.streamed import kind_of
from jobs.export.updates import CannotStreamError
from jobs.export.updates.lora import scale

# The names of A and B, of a linear layer and of an embedding.
LEAVES = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))
# Where an adapter sits.
_PLACES = ("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern")
Progress = Callable[[int, int], None]
# Tensors of the same shape, and their weights [tensors]: one tensor.
Rule = Callable[[list[Tensor], Tensor], Tensor]


@dataclass(frozen=True)
class _Factors:
    """An adapter's update of one module, weight * scale * B A: `down` is A [rank, inputs], `up` is B [outputs, rank]."""

    down: Tensor
    up: Tensor
    weight: float
    scale: float

    @property
    def rank(self) -> int:
        return len(self.down)

    @property
    def factor(self) -> float:
        return self.weight * self.scale


@dataclass(frozen=True)
class _Stored:
    """Where the same lies in a file."""

    leaves: tuple[str, str]
    down: StoredTensor
    up: StoredTensor
    weight: float
    scale: float

    def load(self) -> _Factors:
        down, up = (torch.from_numpy(tensor.floats().copy()) for tensor in (self.down, self.up))
        return _Factors(down, up, self.weight, self.scale)


def combine(parts: Sequence[Part], spec: CompositionSpec, out: Path, progress: Progress) -> dict[str, Any]:
    """Writes config and weights of the composed adapter into the new folder `out`; `progress(done, total)` counts modules.

    Returns `modules`, how many it changes, `rank`, the largest, and `lost`, the share of the combined updates' norm that cutting them to a
    rank has left out (0 where nothing is cut). The scale of the result is 1 everywhere. Raises `UserError("composition_unfit")`.
    """
    combination = COMBINATIONS[spec.combination]
    modules = _modules(parts)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    whole = lost = 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        for done, (name, stored) in enumerate(sorted(modules.items()), 1):
            made = _combined(name, [each.load() for each in stored], combination, spec)
            for leaf, tensor in zip(stored[0].leaves, (made.down, made.up), strict=True):
                tensors[f"{PREFIX}{name}.{leaf}"] = tensor.contiguous()
            ranks[name] = len(made.down)
            whole, lost = whole + made.whole, lost + made.lost
            progress(done, len(modules))
    out.mkdir(parents=True)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    config = _config(parts, spec, ranks)
    (out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {"modules": len(ranks), "rank": max(ranks.values()), "lost": math.sqrt(lost / whole) if whole else 0.0}


def _modules(parts: Sequence[Part]) -> dict[str, list[_Stored]]:
    """The updates of each module, in the order of the adapters."""
    found: dict[str, list[_Stored]] = {}
    for part in parts:
        for name, stored in _read(part).items():
            others = found.setdefault(name, [])
            ours, theirs = (_sizes(each) for each in (stored, others[0] if others else stored))
            if ours != theirs:
                raise unfit(
                    f"{name} has {theirs[1]} inputs and {theirs[0]} outputs to {parts[0].name}, {ours[1]} and {ours[0]} to {part.name}",
                    "Choose adapters of one base model.",
                )
            others.append(stored)
    return found


def _sizes(stored: _Stored) -> tuple[int, int]:
    return stored.up.shape[0], stored.down.shape[1]


def _read(part: Part) -> dict[str, _Stored]:
    """An adapter's updates by module. Raises `UserError` where it holds anything else."""
    try:
        file = AdapterFile(part.folder)
        kind_of(file)
    except (CannotStreamError, ValueError) as failure:
        raise unfit(f"{part.name}: {failure}", "Choose plain LoRA adapters.") from None
    if file.config.get("loftq_config"):
        raise unfit(f"{part.name} (LoftQ) makes up for the base's rounding, which a sum would do twice", "Leave it out.")
    found = {}
    for key in sorted(file.left()):
        for leaves in LEAVES:
            name = key.removeprefix(PREFIX).removesuffix(f".{leaves[0]}")
            if key == f"{PREFIX}{name}.{leaves[0]}" and (halves := file.take_all(name, *leaves)):
                down, up = halves
                found[name] = _Stored(leaves, down, up, part.weight, scale(file, name, down))
    if left := file.left():
        raise unfit(
            f"{part.name} has trained more than low-rank updates ({min(left)})", "Leave it out: DoRA, biases and tokens do not add up."
        )
    if not found or any(len(half.shape) != 2 for each in found.values() for half in (each.down, each.up)):
        raise unfit(f"{part.name} has no low-rank updates of matrices alone", "Choose plain LoRA adapters.")
    return found


@dataclass(frozen=True)
class _Made:
    """A combined update B A, the square of its norm before it was cut, and what was cut of that."""

    down: Tensor
    up: Tensor
    whole: float = 0.0
    lost: float = 0.0


def _combined(name: str, updates: list[_Factors], combination: Combination, spec: CompositionSpec) -> _Made:
    if combination.of == "stack":
        return _stacked(updates)
    if combination.of == "update":
        rank = spec.rank or max(each.rank for each in updates)
        if combination.rule == "task_arithmetic":
            return _cut_stack(_stacked(updates), rank)
        weights = torch.tensor([each.weight for each in updates])
        return _cut(_rule(combination, spec)([each.scale * (each.up @ each.down) for each in updates], weights), rank)
    if len({each.rank for each in updates}) > 1:
        ranks = ", ".join(str(each.rank) for each in updates)
        raise unfit(
            f"{combination.name} needs equal ranks, and those of {name} are {ranks}", "Choose cat, or a combination that ends in svd."
        )
    # The sign goes to one side only, or two of them would cancel out.
    roots = torch.tensor([math.sqrt(abs(each.factor)) for each in updates])
    signs = torch.tensor([math.copysign(1.0, each.factor) for each in updates])
    rule = _rule(combination, spec)
    return _Made(rule([each.down for each in updates], roots * signs), rule([each.up for each in updates], roots))


def _rule(combination: Combination, spec: CompositionSpec) -> Rule:
    from peft.utils import merge_utils

    rule = getattr(merge_utils, combination.rule)
    extra = (spec.density,) if combination.prunes else ()
    return lambda tensors, weights: rule(tensors, weights, *extra)


def _stacked(updates: Sequence[_Factors]) -> _Made:
    """The exact sum: [w1 s1 A1; w2 s2 A2] and [B1 | B2]."""
    return _Made(torch.cat([each.factor * each.down for each in updates]), torch.cat([each.up for each in updates], dim=1))


def _cut_stack(made: _Made, rank: int) -> _Made:
    """The best approximation of B A of a rank. Only the small core between two orthogonal bases is decomposed: B A = Q (R S^T) P^T."""
    (left, core_left), (right, core_right) = torch.linalg.qr(made.up), torch.linalg.qr(made.down.T)
    small = _cut(core_left @ core_right.T, rank)
    return _Made(small.down @ right.T, left @ small.up, small.whole, small.lost)


def _cut(update: Tensor, rank: int) -> _Made:
    """The best approximation of a matrix of a rank, as A = V^T and B = U S; a matrix of smaller rank gets what it has."""
    u, s, v = torch.linalg.svd(update, full_matrices=False)
    squares = s.double().square()
    return _Made(v[:rank], u[:, :rank] * s[:rank], float(squares.sum()), float(squares[rank:].sum()))


def _config(parts: Sequence[Part], spec: CompositionSpec, ranks: Mapping[str, int]) -> dict[str, Any]:
    """The first adapter's, with alpha equal to the rank everywhere, upon just those modules that any adapter changes."""
    usual = Counter(ranks.values()).most_common(1)[0][0]
    others = {name: rank for name, rank in ranks.items() if rank != usual}
    alike = all(part.config.get(key) == parts[0].config.get(key) for part in parts for key in _PLACES)
    places = {} if alike else {**dict.fromkeys(_PLACES), "target_modules": sorted(ranks)}
    return {
        **parts[0].config, **places, "r": usual, "lora_alpha": usual, "rank_pattern": others, "alpha_pattern": dict(others),
        "use_rslora": False, "init_lora_weights": True, "eva_config": None, "lora_dropout": 0.0, "inference_mode": True,
        "base_model_name_or_path": spec.model.name or None, "revision": spec.model.revision or None,
    }  # fmt: skip
