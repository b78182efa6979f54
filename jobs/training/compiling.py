"""Makes the libraries of regions: `python -m jobs.training.compiling FOLDER PARENT`, geometries as JSON on standard input."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch

from jobs.geometry import Geometry
from jobs.parent import die_with
from jobs.training.region import Region

# Sizes of the example that a function is traced with: any that differ, so that no two dimensions are taken for one.
_SIZES = {"*tokens": 24, "*rows": 5, "*longest": 7, "*length": 11}


def compile_geometry(geometry: Geometry, folder: Path) -> Path:
    """Makes one library; it is whole or not there. Raises what torch's export or the C++ compiler raise."""
    target = folder / geometry.file_name
    if target.exists():
        return target
    static = dict(geometry.static)

    class Function(torch.nn.Module):
        def forward(self, *tensors: torch.Tensor) -> Any:
            return Region.known[geometry.region].function(*tensors, **static)

    example, free = [], []
    for dtype, sizes, strides in zip(geometry.dtypes, geometry.sizes, geometry.strides, strict=True):
        shape = [size if isinstance(size, int) else _SIZES[size] for size in sizes]
        tensor = torch.zeros(shape, dtype=getattr(torch, dtype))
        example.append(tensor if strides is None else torch.empty_strided(shape, strides, dtype=tensor.dtype).zero_())
        free.append({place: torch.export.Dim.DYNAMIC for place, size in enumerate(sizes) if isinstance(size, str)})
    program = torch.export.export(Function(), tuple(example), dynamic_shapes=(tuple(free),), strict=False)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
        options = {"cpp.dynamic_threads": True}
        made = torch._inductor.aoti_compile_and_package(program, package_path=f"{scratch}/{target.name}", inductor_configs=options)
        os.replace(made, target)
    return target


def main(arguments: Sequence[str]) -> int:
    """Compiles what is missing; a geometry that cannot be compiled is told and passed over."""
    folder, parent = Path(arguments[0]), int(arguments[1])
    # The compilers that are our children would outlive us: we end them, and ourselves after them.
    signal.signal(signal.SIGTERM, _end_all)
    if not die_with(parent, signal.SIGTERM):
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    from jobs.training import regions  # noqa: F401 registers the functions

    failed = 0
    for body in json.loads(sys.stdin.read()):
        geometry = geometry_from(body)
        try:
            compile_geometry(geometry, folder)
        except Exception as failure:  # noqa: BLE001 whatever a compiler may raise: the plain function stays in use
            failed += 1
            sys.stderr.write(f"{geometry.region}: {type(failure).__name__}: {str(failure).splitlines()[0][:300]}\n")
    return int(failed > 0)


def _end_all(*_: object) -> None:
    """Kills every process that this one has started, and this one."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    os._exit(1)


def geometry_from(body: dict[str, Any]) -> Geometry:
    """A geometry back from its JSON."""
    return Geometry(
        body["region"],
        tuple((name, value) for name, value in body["static"]),
        tuple(body["dtypes"]),
        tuple(tuple(sizes) for sizes in body["sizes"]),
        tuple(None if strides is None else tuple(strides) for strides in body["strides"]),
    )


def to_json(geometries: Sequence[Geometry]) -> str:
    """Geometries as `main` reads them."""
    return json.dumps([asdict(geometry) for geometry in geometries])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
