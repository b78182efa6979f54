"""Several block-sparse adapters of one base as one (numpy alone: no model is loaded)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from jobs.adapter_files import CONFIG, WEIGHTS
from jobs.methods.block_sparse.overlap import Blocks, places

TYPE = "BLOCK_SPARSE"
_PREFIX = "base_model.model."
_SCORES, _VALUES, _POSITIONS = (f".block_sparse_{name}" for name in ("scores", "values", "positions"))

Array = NDArray[Any]


@dataclass(frozen=True)
class _Module:
    """One adapted module's scores [n, m], values [k, height, width] and positions [k]."""

    scores: Array
    values: Array
    positions: Array

    def blocks(self, scale: float) -> dict[int, Array]:
        """The update's blocks by position, float32 [height, width] each; those whose score is not positive add nothing and are left out."""
        selected = self.scores.reshape(-1)[self.positions]
        return {
            int(position): np.float32(scale * score) * values
            for position, score, values in zip(self.positions, selected, self.values, strict=True)
            if score > 0
        }


class BlockSparseFile:
    """The folder of a block-sparse adapter, as PEFT writes it."""

    def __init__(self, folder: Path) -> None:
        """Reads it. Raises `OSError`, or `ValueError` where it is another kind of adapter or not whole."""
        self.config: Mapping[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if self.config.get("peft_type") != TYPE:
            raise ValueError(f"{folder} holds an adapter of the kind {self.config.get('peft_type')}, not a block-sparse one")
        tensors = load_file(folder / WEIGHTS)
        names = [name.removesuffix(_SCORES) for name in tensors if name.endswith(_SCORES)]
        try:
            self.modules = {
                name: _Module(tensors.pop(name + _SCORES), tensors.pop(name + _VALUES), tensors.pop(name + _POSITIONS)) for name in names
            }
        except KeyError as missing:
            raise ValueError(f"{folder} lacks the tensor {missing}") from missing
        self.others = sorted(tensors)

    @cached_property
    def blocks(self) -> list[Blocks]:
        """Where the adapter acts, module by module, for `jobs.methods.block_sparse.overlap`."""
        located = places([name.removeprefix(_PREFIX) for name in self.modules])
        found = []
        for (layer, module), each in zip(located, self.modules.values(), strict=True):
            n, m = each.scores.shape
            found.append(Blocks(layer, module, n, m, frozenset(each.positions.tolist())))
        return found


@dataclass(frozen=True)
class Composition:
    """What was composed: the blocks that any of the adapters has, those that several have, and these as a part of all."""

    blocks: int
    conflicts: int

    @property
    def share(self) -> float:
        """The part of all blocks in which adapters meet, 0 where there are none."""
        return self.conflicts / self.blocks if self.blocks else 0.0


def compose(adapters: Sequence[tuple[Path, float]], out: Path) -> Composition:
    """Writes the weighted sum of block-sparse adapters, (folder, weight) each, into a new folder `out`; exact, for blocks are only
    collected, and added where several meet.

    Every module gets as many slots as the fullest needs, the rest of them on its best free blocks with values of zero, so that the result
    is an adapter like any other: alpha is 1, a block keeps its highest score, and scores still order blocks as selected and not. Only
    config and weights are written. Raises `OSError`, or `ValueError` where grids or bases differ or a task's head was trained along.
    """
    files = [(BlockSparseFile(folder), weight) for folder, weight in adapters]
    _check(files)
    names = sorted({name for file, _ in files for name in file.modules})
    grids = {name: np.maximum.reduce([file.modules[name].scores for file, _ in files if name in file.modules]) for name in names}
    parts = {
        name: [file.modules[name].blocks(weight * file.config["alpha"]) for file, weight in files if name in file.modules] for name in names
    }
    slots = max(1, *(len(set().union(*blocks)) for blocks in parts.values()))
    tensors: dict[str, Array] = {}
    for name in names:
        for leaf, tensor in zip((_SCORES, _VALUES, _POSITIONS), _joined(grids[name], parts[name], slots, files, name), strict=True):
            tensors[name + leaf] = tensor
    out.mkdir(parents=True)
    save_file(tensors, out / WEIGHTS, metadata={"format": "pt"})
    targets = sorted({target for file, _ in files for target in file.config["target_modules"]})
    config = {**files[0][0].config, "k": slots, "alpha": 1.0, "target_modules": targets, "inference_mode": True}
    (out / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    counts = [sum(position in blocks for blocks in each) for each in parts.values() for position in set().union(*each)]
    return Composition(len(counts), sum(count > 1 for count in counts))


def _joined(
    grid: Array, parts: Sequence[Mapping[int, Array]], slots: int, files: Sequence[tuple[BlockSparseFile, float]], name: str
) -> tuple[Array, Array, Array]:
    """The composed module's scores, values and positions."""
    taken = sorted(set().union(*parts))
    scores = grid.reshape(-1).copy()
    free = [int(position) for position in np.argsort(-scores, kind="stable") if position not in set(taken)]
    chosen = [*taken, *free[: slots - len(taken)]]
    height, width = next(file.modules[name].values.shape[1:] for file, _ in files if name in file.modules)
    values = np.zeros((slots, height, width), np.float32)
    for slot, position in enumerate(taken):
        values[slot] = sum(blocks[position] for blocks in parts if position in blocks) / scores[position]
    rest = free[slots - len(taken) :]
    scores[rest] = np.minimum(scores[rest], np.nextafter(scores[chosen].min(), np.float32(-np.inf)))
    return scores.reshape(grid.shape), values, np.array(chosen, np.int32)


def _check(files: Sequence[tuple[BlockSparseFile, float]]) -> None:
    """Raises `ValueError` where adapters cannot be added to one another."""
    shapes: dict[str, tuple[Any, ...]] = {}
    for file, _ in files:
        if file.others:
            raise ValueError(f"an adapter has trained more than blocks, {file.others[0]} among it, which cannot be added up")
        for name, module in file.modules.items():
            shape = (module.scores.shape, module.values.shape[1:])
            if shapes.setdefault(name, shape) != shape:
                raise ValueError(f"the adapters cut {name.removeprefix(_PREFIX)} into different blocks")
    bases = {str(base) for file, _ in files if (base := file.config.get("base_model_name_or_path"))}
    if len(bases) > 1:
        raise ValueError(f"the adapters are of different bases: {', '.join(sorted(bases))}")
