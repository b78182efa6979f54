"""`python -m jobs merge`: a model of its own, of a base and an adapter."""

from __future__ import annotations

import argparse
import errno
import json
import os
import sys
import time
from pathlib import Path

from jobs.commands.progress import PhaseProgress
from jobs.errors import GraftError

HELP = "merge an adapter into its base model"
SHARD_BYTES = 2_000_000_000
# As `jobs.spec.StoredDtype`, whose module takes as long to import as a small merge takes.
STORED_DTYPES = ("base", "float32")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments of the command."""
    parser.add_argument("--base", type=Path, required=True, help="the base model's folder")
    parser.add_argument("--adapter", type=Path, required=True, help="the adapter's folder, as peft saves it")
    parser.add_argument("--out", type=Path, required=True, help="the merged model's folder; it must not exist, or be empty")
    parser.add_argument("--dtype", choices=STORED_DTYPES, default="base", help="how weights are stored: as the base's, or in float32")
    parser.add_argument("--shard-bytes", type=_shard_bytes, default=SHARD_BYTES, metavar="N", help="largest file (%(default)s)")
    parser.add_argument(
        "--dequantised",
        nargs="?",
        const="bfloat16",
        choices=("bfloat16", "float32"),
        metavar="PRECISION",
        help="merge into what a QLoRA run computed with: the base in NF4 and back, read in the run's precision (bfloat16, or float32)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the command. With `--json`, standard output gets a `phase` event a line, and last `{"merged": {...}}`."""
    # The merge has threads of its own; one more for each of them inside the matrix product only gets in their way.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    started = time.monotonic()
    try:
        how = _merge(arguments)
    except OSError as failure:
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise GraftError("disk_full", path=arguments.out) from failure
        raise
    seconds = time.monotonic() - started
    size = sum(path.stat().st_size for path in arguments.out.glob("*.safetensors"))
    if arguments.json:
        body = {"path": str(arguments.out), "how": how, "bytes": size, "seconds": round(seconds, 3)}
        sys.stdout.write(json.dumps({"merged": body}) + "\n")
    else:
        sys.stdout.write(f"The merged model ({size:,} bytes of weights, {how}, {seconds:.1f} s) is at {arguments.out}\n")
    return 0


def _merge(arguments: argparse.Namespace) -> str:
    from jobs.export.dequantised import requantised_weights
    from jobs.export.merged_folder import merge_folder
    from jobs.models.heads import read_head

    precision = arguments.dequantised
    return merge_folder(
        arguments.base,
        arguments.adapter,
        arguments.out,
        shard_bytes=arguments.shard_bytes,
        dtype=arguments.dtype,
        dequantised=requantised_weights(arguments.base, precision, read_head(arguments.adapter)) if precision else None,
        progress=PhaseProgress("merging", "tensors", as_json=arguments.json),
    )


def _shard_bytes(text: str) -> int:
    """A number of bytes, as `spec.export.shard_bytes` allows it."""
    if (value := int(text)) < 1_000_000:
        raise argparse.ArgumentTypeError("a file must be allowed to hold at least 1,000,000 bytes")
    return value
