"""`python -m jobs` as it is, where memory is scarce.

`--gpu-rows N`: the allocator of a GPU that is not here refuses any micro-batch of more than N rows from the third step on: the one place
where a raise stands in for a device. `--data-bytes N`: the kernel refuses this process more private memory than that.
"""

from __future__ import annotations

import argparse
import resource
import sys
from typing import Any

import torch

from jobs.__main__ import main
from jobs.training.loop import Trainer, Work


def refuse(most_rows: int) -> None:
    """Has a step's gradients fail as they do where CUDA has no more memory."""
    plainly = Trainer._gradients

    def gradients(self: Trainer, work: Work) -> tuple[float, int]:
        if self.progress.step >= 2 and self.spec.micro_batch > most_rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return plainly(self, work)

    Trainer._gradients = gradients  # type: ignore[method-assign]


def start(arguments: list[str]) -> Any:
    """Makes memory scarce, then runs the engine; gives its exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--gpu-rows", type=int)
    parser.add_argument("--data-bytes", type=int)
    options, rest = parser.parse_known_args(arguments)
    if options.gpu_rows is not None:
        refuse(options.gpu_rows)
    if options.data_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (options.data_bytes, options.data_bytes))
    return main(["train", *rest])


if __name__ == "__main__":
    sys.exit(start(sys.argv[1:]))
