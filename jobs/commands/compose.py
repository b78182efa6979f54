"""`python -m jobs compose`: several adapters of one base as one, from a spec file to its artifacts, as a program of its own."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from jobs.commands.train import add_child_arguments, carry_out, load_engine
from jobs.composition.spec import LOW_RANK, load_composition
from jobs.data.token_cache import TokenCache
from jobs.methods.registry import get_method

HELP = "combine finished adapters of one base model into one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of every supervised program: a composition has nothing to resume from."""
    add_child_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Runs, writes `events.jsonl` and returns an exit code of `jobs.errors.ExitCode`. Raises `GraftError` where it failed."""
    return carry_out(arguments, _compose)


def _compose(arguments: argparse.Namespace, emit: Callable[..., Any], stop: Callable[[], bool]) -> int:
    spec = load_composition(arguments.spec)
    # Which of the kinds it is stands in the adapters; what has to be loaded is the same.
    trained = spec.as_run(LOW_RANK)
    load_engine(trained, get_method(trained.method.id), emit)
    from jobs.composition.compose import execute

    execute(spec, arguments.out, emit=emit, stop=stop, cache=TokenCache(arguments.token_cache, arguments.token_cache_bytes))
    return 0
