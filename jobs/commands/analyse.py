"""`python -m jobs analyse`: which rank and bits suit a run, measured on its base and its rows before it is launched."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from jobs.analysis.defaults import BATCHES, BITS, DIRECTIONS
from jobs.commands.train import add_child_arguments, carry_out
from jobs.data.token_cache import TokenCache
from jobs.errors import UserError
from jobs.imports import import_engine, leave_out_bitsandbytes
from jobs.methods.registry import get_method
from jobs.spec import load_spec

HELP = "measure which rank and which bits of the base suit a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every supervised program, and how much is looked at."""
    add_child_arguments(parser)
    parser.add_argument("--batches", type=int, default=BATCHES, metavar="N", help="mini-batches to look at (%(default)s)")
    parser.add_argument("--directions", type=int, default=DIRECTIONS, metavar="K", help="singular values of a layer (%(default)s)")
    parser.add_argument(
        "--bits", default=",".join(map(str, BITS)), metavar="LIST", help="widths of the base to compare (%(default)s); empty for none"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs, writes `events.jsonl` and `analysis.json`, and returns an exit code of `jobs.errors.ExitCode`. On standard output: the events
    with `--json`, else the result in a table. Raises `GraftError` where it failed.
    """
    return carry_out(arguments, partial(_analyse, _bits(arguments.bits)))


def _analyse(bits: tuple[int, ...], arguments: argparse.Namespace, emit: Callable[..., Any], stop: Callable[[], bool]) -> int:
    spec = load_spec(arguments.spec)
    if all(width == 16 for width in bits):
        leave_out_bitsandbytes(spec, get_method(spec.method.id))
    # at 8 bits bitsandbytes tells of every layer in every batch that it takes float16
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)
    import_engine(peft=False)
    from jobs.analysis.job import execute

    found = execute(
        spec,
        arguments.out,
        emit=emit,
        stop=stop,
        cache=TokenCache(arguments.token_cache, arguments.token_cache_bytes),
        batches=max(1, arguments.batches),
        directions=max(1, arguments.directions),
        bits=bits,
    )
    if not arguments.json:
        sys.stdout.write(table(found))
    return 0


def _bits(text: str) -> tuple[int, ...]:
    known = [str(bits) for bits in BITS]
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    for part in chosen:
        if part not in known:
            raise UserError(
                "spec_bad_value", field="--bits", value=repr(part), reason=f"known are {', '.join(known)}", where={"field": "bits"}
            )
    return tuple(int(part) for part in chosen)


def table(found: dict[str, Any]) -> str:
    """An analysis in words and figures, for a terminal."""
    spectrum, pattern = found["spectrum"], found["spectrum"]["rank_pattern"]
    more = " or more" if spectrum["suggested_rank_is_at_least"] else ""
    lines = [
        f"Gradient over {spectrum['rows']} rows ({spectrum['labels']:,} labels), base in {found['bits_of_base']} bits",
        f"  {'module':<24}{'layers':>8}{'80 % of the energy':>24}{'90 %':>16}   (directions: least, median, most)",
    ]
    for module, ranks in spectrum["modules"].items():
        shares = [", ".join(map(str, ranks[f"effective_rank_{share}"])) for share in (80, 90)]
        lines.append(f"  {module:<24}{ranks['layers']:>8}{shares[0]:>24}{shares[1]:>16}")
    lines += [
        "",
        f"Suggested rank: {spectrum['suggested_rank']}{more} for all layers; a hint, see docs/advice.md.",
        f"At the same cost by layer: {min(pattern.values())} to {max(pattern.values())}.",
    ]
    if found["bits"]:
        lines += ["", "Bits of the base, before training"]
        for width, advice in zip(found["bits"]["widths"], found["bits"]["advice"], strict=True):
            loss = "-" if width["loss"] is None else f"{width['loss']:.4f}"
            lines.append(
                f"  {width['bits']:>2} bits: loss {loss}, weights moved by {100 * width['relative_error']:.1f} %, rank {advice['rank']}"
            )
    lines += ["", f"{found['seconds']:.0f} s, {found['peak_bytes'] / 2**30:.1f} GiB"]
    return "\n".join(lines) + "\n"
