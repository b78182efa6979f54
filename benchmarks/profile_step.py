"""`make bench-profile`: where the time of a steady step of Graft goes, and how far the matrix products are from what this machine can do.

The run is `python -m jobs train` in this process; its event writer is watched, so that the profiler sees one whole step and nothing else.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.gemm import Product, flops, measure_products
from benchmarks.peers import ROOT
from benchmarks.training import chosen_cases, machine, sample_model
from benchmarks.workloads import TIMED, UNTIMED, graft_spec, load_records, write_rows
from jobs.events import Event, EventWriter

# The longest products of a step, which hold nearly all of its arithmetic.
_PRODUCTS = 10
_KINDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("matrix products", ("aten::mm", "aten::addmm", "mkldnn::_linear_pointwise")),
    ("attention products", ("aten::bmm", "aten::baddbmm", "aten::_scaled_dot_product")),
    ("optimiser", ("Optimizer.", "aten::_fused_adam", "aten::_foreach")),
    ("copies and joins", ("aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy", "aten::index", "aten::contiguous")),
    ("compiler's look-ups", ("TorchDynamo", "Pregraph", "torch::dynamo")),
    ("compiled kernels", ("Torch-Compiled", "## Call", "CompiledFunction", "graph_", "CompiledFxGraph")),
)
_OTHER, _AUTOGRAD, _PYTHON = "other operations of torch", "autograd and its functions", "Python and the rest"


@dataclass(frozen=True)
class Operation:
    """One operation as the profiler saw it: its own seconds, without those of the operations that it called."""

    name: str
    seconds: float
    shapes: tuple[tuple[int, ...], ...]


@dataclass
class Watched:
    """What was seen of a step: its seconds, real tokens, and the operations of the thread that trains."""

    seconds: float
    tokens: int
    operations: list[Operation]


class Watch:
    """Profiles one step, from the end of the one before it."""

    def __init__(self, step: int) -> None:
        self._step = step
        self._profiler: Any = None
        self._began = 0.0
        self._tokens = 0
        self.found: Watched | None = None

    def see(self, event: Event) -> None:
        """To be called with every event, from the thread that trains, as soon as it is written."""
        if event.kind != "step":
            return
        if event.data["step"] == self._step - 1:
            from torch.profiler import ProfilerActivity, profile

            self._profiler = profile(activities=[ProfilerActivity.CPU], record_shapes=True)
            self._profiler.start()
            self._tokens = event.data["tokens"]
            self._began = time.perf_counter()
        elif event.data["step"] == self._step:
            seconds = time.perf_counter() - self._began
            self._profiler.stop()
            self.found = Watched(seconds, event.data["tokens"] - self._tokens, _operations(self._profiler.events()))


def _operations(events: Iterable[Any]) -> list[Operation]:
    """The operations of the thread that did most; others (batches made ahead) cost the training no time of its own."""
    by_thread: dict[int, list[Operation]] = {}
    for event in events:
        shapes = tuple(tuple(shape) for shape in event.input_shapes or ())
        by_thread.setdefault(event.thread, []).append(Operation(event.name, event.self_cpu_time_total / 1e6, shapes))
    return max(by_thread.values(), key=lambda operations: sum(one.seconds for one in operations))


def shares(watched: Watched) -> dict[str, float]:
    """Share of the step's time by kind of operation; what no operation accounts for is Python's."""
    spent: dict[str, float] = defaultdict(float)
    for operation in watched.operations:
        rest = _OTHER if "::" in operation.name and not operation.name.startswith("autograd::") else _AUTOGRAD
        kind = next((kind for kind, names in _KINDS if operation.name.startswith(names)), rest)
        spent[kind] += operation.seconds
    kinds = [*(kind for kind, _ in _KINDS), _OTHER, _AUTOGRAD]
    found = {kind: spent[kind] / watched.seconds for kind in kinds}
    return found | {_PYTHON: 1.0 - sum(found.values())}


def products(operations: Iterable[Operation]) -> Counter[Product]:
    """How often each matrix product [rows, inner] x [inner, columns] was made, batches of products counted singly."""
    found: Counter[Product] = Counter()
    for operation in operations:
        product = product_of(operation)
        if product:
            found[product[0]] += product[1]
    return found


def product_of(operation: Operation) -> tuple[Product, int] | None:
    """(product, how often) of an operation; None where it is not one. PyTorch's shapes: addmm and baddbmm begin with what is added."""
    name, shapes = operation.name, operation.shapes
    if name in ("aten::mm", "aten::addmm"):
        left, right = shapes[1:3] if name == "aten::addmm" else shapes[:2]
        return Product(left[0], left[1], right[1]), 1
    if name in ("aten::bmm", "aten::baddbmm"):
        left, right = shapes[1:3] if name == "aten::baddbmm" else shapes[:2]
        return Product(left[1], left[2], right[2]), left[0]
    if name == "mkldnn::_linear_pointwise":
        rows = 1
        for size in shapes[0][:-1]:
            rows *= size
        return Product(rows, shapes[0][-1], shapes[1][0]), 1
    return None


def watch_run(spec: dict[str, Any], step: int) -> Watched:
    """Trains in this process and returns what was seen of step number `step`."""
    from jobs.__main__ import main as jobs_main
    from jobs.commands import train

    watch = Watch(step)

    class Writer(EventWriter):
        def emit(self, kind: Any, /, **data: Any) -> Event:
            event = super().emit(kind, **data)
            watch.see(event)
            return event

    vars(train).update(EventWriter=Writer)
    with tempfile.TemporaryDirectory(prefix="graft-bench-") as folder:
        path = Path(folder) / "spec.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        code = jobs_main(["train", str(path), "--out", str(Path(folder) / "out")])
    if code or watch.found is None:
        raise SystemExit(f"the run ended with code {code} before its profile was whole")
    return watch.found


def report(watched: Watched) -> dict[str, Any]:
    """The figures: shares, arithmetic done (that of torch's own attention kernel left out), and the share of the machine's peak reached."""
    made = products(watched.operations)
    total = sum(flops(product) * count for product, count in made.items())
    longest = sorted(made, key=lambda product: -flops(product) * made[product])[:_PRODUCTS]
    rates = measure_products(longest)
    peak = max(max(row.bf16, row.bf16_packed or 0) for row in rates)
    return {
        "seconds_per_step": round(watched.seconds, 4),
        "tokens_per_second": round(watched.tokens / watched.seconds, 1),
        "shares": {kind: round(share, 4) for kind, share in shares(watched).items()},
        "operations": _longest_operations(watched),
        "mflop_per_token": round(total / watched.tokens / 1e6, 1),
        "gflop_per_second": round(total / watched.seconds / 1e9, 1),
        "peak_bf16_gflop_per_second": round(peak, 1),
        "peak_fp32_gflop_per_second": round(max(max(row.fp32, row.fp32_packed or 0) for row in rates), 1),
        "median_bf16_gflop_per_second": round(median(max(row.bf16, row.bf16_packed or 0) for row in rates), 1),
        "share_of_bf16_peak": round(total / watched.seconds / 1e9 / peak, 4),
        "products": [row.to_json(count=made[row.product], share=flops(row.product) * made[row.product] / total) for row in rates],
    }


def _longest_operations(watched: Watched, most: int = 20) -> dict[str, float]:
    """Share of the step's time by operation, the longest first."""
    spent: dict[str, float] = defaultdict(float)
    for operation in watched.operations:
        spent[operation.name] += operation.seconds
    longest = sorted(spent, key=lambda name: -spent[name])[:most]
    return {name: round(spent[name] / watched.seconds, 4) for name in longest}


def table(name: str, found: dict[str, Any]) -> str:
    """The figures in Markdown."""
    lines = [f"### {name}: {found['tokens_per_second']} tokens/s while profiled, {found['seconds_per_step']} s/step", ""]
    lines += ["| where the time goes | share |", "|---|---:|"]
    lines += [f"| {kind} | {share:.1%} |" for kind, share in found["shares"].items()]
    lines += [
        "",
        "| product [rows, inner, columns] | times | of all FLOPs | bf16 | bf16 packed | fp32 | fp32 packed |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found["products"]:
        rates = " | ".join(f"{row[key]:.0f}" if row[key] else "none" for key in ("bf16", "bf16_packed", "fp32", "fp32_packed"))
        lines.append(f"| {row['shape']} | {row['count']} | {row['share']:.1%} | {rates} |")
    lines.append(
        f"\n{found['mflop_per_token']} MFLOP/token executed, {found['gflop_per_second']} GFLOP/s, {found['share_of_bf16_peak']:.1%} of the "
        f"highest bf16 rate of the table ({found['peak_bf16_gflop_per_second']})."
    )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Profiles one case in this process: torch's settings are of the process, so a second case would be profiled in another state."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile_step", description=__doc__)
    parser.add_argument("--data", type=Path, help="as for bench-training")
    parser.add_argument("--case", default="", help="the case, such as lora-bf16-arc (the first load's LoRA in bf16 where absent)")
    options = parser.parse_args(argv)
    cases = chosen_cases(options.data, options.case or "lora-bf16")
    if not cases:
        raise SystemExit(f"no case begins with '{options.case}'")
    case = cases[0]
    rows = ROOT / "var" / "bench" / f"{case.load}.jsonl"
    rows.parent.mkdir(parents=True, exist_ok=True)
    write_rows(load_records(case.load, options.data), rows)
    watched = watch_run(graft_spec(case, rows, sample_model()), UNTIMED + TIMED)
    found = report(watched)
    print(f"\n{table(case.name, found)}\n")
    print(json.dumps({"machine": machine(), "case": case.name, **found}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
