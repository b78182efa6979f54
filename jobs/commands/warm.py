"""`python -m jobs warm`: makes the compiled regions of a model, so that its first run has them from its first step."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from jobs.commands.train import prepare_environment
from jobs.geometry import Geometry, default_folder
from jobs.models.device import owned_threads, probe

HELP = "make the compiled parts of a model ahead of its first run"
# Lengths of the rows that stand for a batch: two that are computed together and one that is not.
_LENGTHS = (24, 24, 70)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model."""
    parser.add_argument("model", type=Path, help="a model's folder")
    parser.add_argument("--regions", type=Path, help="where they are kept (GRAFT_REGIONS, else a folder of the user's own)")
    parser.add_argument("--made", type=Path, metavar="DIR", help="where some may have been made before, to be copied")


def run(arguments: argparse.Namespace) -> int:
    """One step of LoRA on made-up rows shows what is missing; what was made before is copied, and the compiler makes the rest, on as many
    cores as the process owns.
    """
    prepare_environment()
    if probe()["kind"] != "cpu":
        sys.stderr.write("Regions are compiled for the CPU alone: nothing to do.\n")
        return 0
    from jobs.training import region
    from jobs.training.libraries import has_compiler, start_compiler

    if not has_compiler():
        sys.stderr.write("There is no C++ compiler: training runs uncompiled, and is slower.\n")
        return 0

    folder = arguments.regions or default_folder()
    region.use_libraries(folder)
    _step(arguments.model)
    wanted = region.wanted()
    missing = [geometry for geometry in wanted if not (arguments.made and copied(geometry, arguments.made, folder))]
    sys.stderr.write(f"{len(wanted) - len(missing)} parts copied, {len(missing)} to compile\n")
    count = owned_threads()
    compilers = [start_compiler(share, folder) for first in range(count) if (share := missing[first::count])]
    codes = [compiler.wait() for compiler in compilers]
    return int(any(codes))


def copied(geometry: Geometry, source: Path, folder: Path) -> bool:
    """Whether `source` has the library of a geometry, made for this processor and torch; then it is whole in `folder`, too."""
    made = source / geometry.file_name
    if not made.is_file():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        os.replace(shutil.copyfile(made, Path(scratch) / made.name), folder / made.name)
    return True


def _step(folder: Path) -> None:
    """Forward and backward of a batch, as a LoRA run on this device makes them."""
    import numpy as np
    import torch

    from jobs.data.tokens import Encoded
    from jobs.device import choose_precision
    from jobs.methods.registry import get_method
    from jobs.methods.setup import Setup
    from jobs.models.loading import DTYPES, load_model
    from jobs.run import apply_method
    from jobs.training.checks import choose_forward

    device = probe()
    torch.set_num_threads(device["threads"])
    precision = choose_precision("auto", device)
    method = get_method("lora")
    model: Any = apply_method(method, load_model(folder, precision=precision, trains_base=False), method.resolve({}), Setup(seed=0))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = np.random.default_rng(0).integers(0, vocabulary, size=(len(_LENGTHS), max(_LENGTHS)), dtype=np.int32)
    rows = [Encoded(row[:length], np.arange(length) > 9) for row, length in zip(ids, _LENGTHS, strict=True)]
    forward, _ = choose_forward(model, rows, dtype=DTYPES[precision], device="cpu")
    forward.refresh()
    batch = forward.batch(rows)
    with forward.running(batch):
        torch.autograd.backward(forward.loss_sum(batch))
