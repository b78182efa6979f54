"""`python -m jobs analyse`: which rank and bits suit a run, measured on its base and its rows before it is launched."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from jobs.analysis.defaults import BATCHES, BITS, DIRECTIONS
from jobs.cache import cache_folder
from jobs.data.token_cache import LIMIT_BYTES, TokenCache
from jobs.errors import UserError
from jobs.spec import load_spec

HELP = "measure which rank and which bits of the base suit a run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The spec, how much is looked at, and where the result goes."""
    tokens = cache_folder() / "tokens"
    parser.add_argument("spec", type=Path, help="the run's spec, a JSON file")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write the whole analysis, with the curve of every layer")
    parser.add_argument("--batches", type=int, default=BATCHES, metavar="N", help="mini-batches to look at (%(default)s)")
    parser.add_argument("--directions", type=int, default=DIRECTIONS, metavar="K", help="singular values of a layer (%(default)s)")
    parser.add_argument(
        "--bits", default=",".join(map(str, BITS)), metavar="LIST", help="widths of the base to compare (%(default)s); empty for none"
    )
    parser.add_argument("--token-cache", type=Path, default=tokens, metavar="DIR", help="where token ids are kept (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Prints the analysis: for a person in a table, with `--json` whole."""
    from jobs.commands.train import prepare_environment

    bits = _bits(arguments.bits)
    spec = load_spec(arguments.spec)
    prepare_environment()
    # at 8 bits bitsandbytes tells of every layer in every batch that it takes float16
    logging.getLogger("bitsandbytes.autograd").setLevel(logging.ERROR)
    from jobs.analysis.report import analyse

    cache = TokenCache(arguments.token_cache, LIMIT_BYTES)
    found = analyse(spec, cache, batches=max(1, arguments.batches), directions=max(1, arguments.directions), bits=bits)
    if arguments.out:
        arguments.out.write_text(json.dumps(found) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found) + "\n" if arguments.json else table(found))
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
