"""Elementwise functions compiled ahead of time: kept on disk, loaded in milliseconds, called without a tracer.

`torch.compile` costs tens of microseconds a call in guards and seconds of tracing in every process; a small model calls such functions a
thousand times a step. Here torch's export and AOTInductor make a library for each function and geometry once (`jobs.training.compiling`);
until one is there, or where there is no compiler, the function runs as it is written.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

from jobs.geometry import Geometry

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

Library = Callable[[list[Tensor]], list[Tensor]]


@dataclass
class _State:
    """What this process has of a folder of libraries, by what a call looks them up with."""

    folder: Path
    loaded: dict[Any, Library] = field(default_factory=dict)
    wanted: dict[Any, Geometry] = field(default_factory=dict)


class Region(Generic[Arguments, Result]):
    """A function of tensors (by position) and static arguments (by name) that gives a tensor or a tuple of them.

    `sizes` names the dimensions of each tensor: `"*tokens width"`, a star where the size is the batch's and free, none where it is the
    model's. A tensor may be a view of some columns of a wider one where only its first size is free; others are made contiguous.
    """

    known: ClassVar[dict[str, Region[Any, Any]]] = {}
    state: ClassVar[_State | None] = None

    def __init__(self, function: Callable[Arguments, Result], sizes: tuple[str, ...]) -> None:
        self.function = function
        self.name = function.__name__
        self.__doc__ = function.__doc__
        self.sizes = [size.split() for size in sizes]
        self._model = [tuple(place for place, size in enumerate(names) if size[0] != "*") for names in self.sizes]
        self._strided = [all(size[0] != "*" for size in names[1:]) for names in self.sizes]
        self.known[self.name] = self

    def __call__(self, *arguments: Arguments.args, **static: Arguments.kwargs) -> Result:
        """Runs the library where one is in use, else the function as it is written."""
        if (state := Region.state) is None:
            return self.function(*arguments, **static)
        libraries = state.loaded
        tensors: Any = arguments
        key: Any = (self.name, *static.values())
        given = []
        for argument, model, strided in zip(tensors, self._model, self._strided, strict=True):
            tensor, strides = argument, None
            if not tensor.is_contiguous():
                strides = tensor.stride()
                if not strided or strides[-1] != 1 or tuple(sorted(strides, reverse=True)) != strides:
                    tensor, strides = tensor.contiguous(), None
            shape = tensor.shape
            key += (tensor.dtype, strides, *[shape[place] for place in model])
            given.append(tensor)
        library = libraries.get(key) or self._find(state, key, given, static)
        if library is None:
            return self.function(*arguments, **static)
        found: Any = library(given)
        answer: Any = found[0] if len(found) == 1 else tuple(found)
        return answer  # type: ignore[no-any-return]

    def _find(self, state: _State, key: Any, tensors: list[Tensor], static: Mapping[str, Any]) -> Library | None:
        """The library from the folder, at the first call of a geometry; where there is none, that is noted and not asked again."""
        if key in state.wanted:
            return None
        geometry = self._geometry(tensors, static)
        path = state.folder / geometry.file_name
        if tensors[0].device.type != "cpu" or not path.is_file():
            state.wanted[key] = geometry
            return None
        try:
            library: Library = torch._inductor.aoti_load_package(str(path)).loader.run
        except RuntimeError as failure:
            warnings.warn(f"{path} does not load, {self.name} runs uncompiled: {failure}", stacklevel=2)
            state.wanted[key] = geometry
            return None
        state.loaded[key] = library
        return library

    def _geometry(self, tensors: list[Tensor], static: Mapping[str, Any]) -> Geometry:
        return Geometry(
            self.name,
            tuple(static.items()),
            tuple(str(tensor.dtype).removeprefix("torch.") for tensor in tensors),
            tuple(
                tuple(name if name[0] == "*" else size for name, size in zip(names, tensor.shape, strict=True))
                for names, tensor in zip(self.sizes, tensors, strict=True)
            ),
            tuple(None if tensor.is_contiguous() else tuple(tensor.stride()) for tensor in tensors),
        )


def region(*sizes: str) -> Callable[[Callable[Arguments, Result]], Region[Arguments, Result]]:
    """Makes a function a `Region`; one string of dimensions for each tensor."""
    return lambda function: Region(function, sizes)


def use_libraries(folder: Path | None) -> None:
    """From now on regions run their libraries of `folder`, and note which are missing; None: all run as they are written."""
    Region.state = None if folder is None else _State(folder)


def wanted() -> list[Geometry]:
    """The geometries that ran without a library."""
    return list(Region.state.wanted.values()) if Region.state else []


def look_again() -> None:
    """Those that were missing may have been made."""
    if Region.state:
        Region.state.wanted.clear()
