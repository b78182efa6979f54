"""`python -m jobs evaluate`: what a model, with or without an adapter, makes of rows, and of the general probe.

A model of another task than writing (its adapter's `head.json` or its own config says which) is measured in that task's figures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.commands.models import add_model_arguments, asked_head, open_asked_model, whole_number
from jobs.data.formats import mapping_from_json
from jobs.data.records import read_records
from jobs.data.rows import Record
from jobs.errors import UserError
from jobs.events import finite
from jobs.models.heads import CAUSAL
from jobs.spec import EvaluationSpec, Mapping

if TYPE_CHECKING:
    from jobs.models.opened import Opened
    from jobs.training.forward import Forward

HELP = "measure a model on rows of your own, and on the general probe"
DEFAULTS = EvaluationSpec()
# Rows on which the way to run the model is chosen.
TRIED_ROWS = 8
Progress = Callable[[int, int], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which model, which rows, and what to leave out."""
    add_model_arguments(parser)
    parser.add_argument("--data", type=Path, metavar="FILE", help="the rows, in any kind of file and layout that can be trained on")
    parser.add_argument("--mapping", metavar="JSON", help="how its columns become rows (without it: recognised)")
    parser.add_argument("--rows", type=whole_number, default=DEFAULTS.rows, metavar="N", help="at most so many are asked (%(default)s)")
    parser.add_argument(
        "--max-new-tokens", type=whole_number, default=DEFAULTS.max_new_tokens, metavar="N", help="of an answer (%(default)s)"
    )
    parser.add_argument("--samples", type=int, default=DEFAULTS.samples, metavar="N", help="answers shown (%(default)s)")
    parser.add_argument("--no-generate", action="store_true", help="no answers: only what is measured by likelihood")
    parser.add_argument("--probe", action="store_true", help="the general probe too, by which forgetting is measured")


def run(arguments: argparse.Namespace) -> int:
    """Prints the figures; with `--json` one object: `evaluation` (as an `eval` event), `samples`, `probe`, null where not asked for."""
    if arguments.data is None and not arguments.probe:
        raise UserError("request_invalid", reason="neither --data nor --probe says what to measure", where={"field": "data"})
    mapping = _mapping(arguments.mapping)
    if asked_head(arguments).auto != CAUSAL.auto:
        opened, probe = open_asked_model(arguments), None
        found: dict[str, Any] | None = _measure(opened, mapping, arguments)
    else:
        records = _read(arguments.data, mapping) if arguments.data else []
        opened = open_asked_model(arguments)
        forward = _forward(opened, records)
        found = _evaluate(opened, forward, records, arguments) if arguments.data else None
        probe = _probe(opened, forward, _progress(arguments)) if arguments.probe else None
    samples = found.pop("samples") if found else []
    if arguments.json:
        body = {"evaluation": found, "samples": samples, "probe": probe, "precision": opened.precision}
        sys.stdout.write(json.dumps(finite(body), ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(_words(found, samples, probe))
    return 0


def _mapping(text: str | None) -> Mapping | None:
    try:
        return mapping_from_json(json.loads(text)) if text else None
    except ValueError as failure:
        raise UserError("mapping_invalid", reason=f"it is not JSON: {failure}", where={"field": "mapping"}) from None


def _read(path: Path, mapping: Mapping | None) -> list[Record]:
    return [record for _, record in read_records(path, mapping)]


def _measure(opened: Opened, mapping: Mapping | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """The figures of a task other than writing."""
    from jobs.run import length_limit
    from jobs.tasks.finished import measure

    if arguments.probe:
        raise UserError("request_invalid", reason="the general probe is for models that write on, and this one does not")
    limit, spec = length_limit(opened.model), _spec(arguments)
    return measure(opened, arguments.model, arguments.data, mapping, spec, length_limit=limit, progress=_progress(arguments))


def _spec(arguments: argparse.Namespace) -> EvaluationSpec:
    return EvaluationSpec(
        generate=not arguments.no_generate, rows=arguments.rows, max_new_tokens=arguments.max_new_tokens, samples=arguments.samples
    )


def _forward(opened: Opened, records: list[Record]) -> Forward:
    """How the model is run, as a run finds it out; on the probe's rows where there are no others."""
    from jobs.data.encoding import encode_records, require_labels
    from jobs.evaluation.likelihood import known_positions
    from jobs.evaluation.probe import load_probe
    from jobs.models.templates import FALLBACK_TEMPLATE
    from jobs.training.checks import choose_forward

    if not opened.tokenizer.chat_template and any("messages" in record for record in records):
        opened.tokenizer.chat_template = FALLBACK_TEMPLATE
    tried = records[:TRIED_ROWS] or load_probe()["knowledge"]
    encoded = encode_records(tried, opened.tokenizer, max_length=known_positions(opened.model))
    require_labels(encoded)
    return choose_forward(opened.model, encoded.rows, dtype=opened.dtype, device=opened.device)[0]


def _evaluate(opened: Opened, forward: Forward, records: list[Record], arguments: argparse.Namespace) -> dict[str, Any]:
    from jobs.data.encoding import encode_records, require_labels
    from jobs.data.tokens import LENGTH_CAP
    from jobs.evaluation import evaluate
    from jobs.evaluation.likelihood import known_positions
    from jobs.training.loss import dataset_loss

    encoded = encode_records(records, opened.tokenizer, max_length=known_positions(opened.model) or LENGTH_CAP)
    require_labels(encoded)
    spec, progress = _spec(arguments), _progress(arguments)
    with opened.computing():
        return evaluate(
            opened.model,
            opened.tokenizer,
            [records[index] for index in encoded.indices],
            spec,
            loss_of=lambda: dataset_loss(forward, encoded.rows, progress),
            progress=progress,
        )


def _probe(opened: Opened, forward: Forward, progress: Progress) -> dict[str, Any]:
    from jobs.evaluation import measure_probe
    from jobs.training.loss import dataset_loss

    with opened.computing():
        return measure_probe(opened.model, opened.tokenizer, loss_of=lambda rows: dataset_loss(forward, rows), progress=progress)


def _progress(arguments: argparse.Namespace) -> Progress:
    """A line that counts on a terminal; with `--json`, or in a pipe, nothing."""
    shown = sys.stderr.isatty() and not arguments.json

    def report(done: int, total: int) -> None:
        if shown:
            sys.stderr.write(f"\r{done:,} of {total:,} rows{'' if done < total else chr(10)}")

    return report


def _words(found: dict[str, Any] | None, samples: list[dict[str, Any]], probe: dict[str, Any] | None) -> str:
    lines = []
    for name, data in (("rows", found), ("probe", probe)):
        figures = {**(data or {}), **(data or {}).get("metrics", {})}
        lines += [f"{name}: {key.replace('_', ' ')} {_figure(value)}" for key, value in figures.items() if _is_figure(value)]
    for kind, data in (probe or {}).get("kinds", {}).items():
        lines.append(
            f"probe, {kind}: " + ", ".join(f"{key.replace('_', ' ')} {_figure(value)}" for key, value in data.items() if _is_figure(value))
        )
    for sample in samples:
        mark = {True: "right", False: "wrong", None: "not scored"}[sample["correct"]]
        lines.append(f"\n[{mark}] {sample['prompt']}\n  answer:   {sample['answer']}\n  expected: {sample['expected']}")
    return "\n".join(lines) + "\n"


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float)


def _figure(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
