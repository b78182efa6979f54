"""The calibration probe: `python -m jobs.planning.probe KIND HIDDEN INTERMEDIATE HEADS KEY_HEADS HEAD_WIDTH VOCABULARY`.

Prints one JSON object with the measured part of a `jobs.planning.calibration.Calibration`. Alone in this package, it runs torch.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from jobs.planning.calibration import Rates
from jobs.planning.passing import tile_rows

# Tokens of a product, and of a row in the attention's products: a usual micro-batch.
TOKENS = 1024
ROW_TOKENS = 128
SECONDS_EACH = 0.06
COPIED_BYTES = 2**26


@dataclass(frozen=True)
class Widths:
    """The widths of a model, in numbers a token."""

    hidden: int
    intermediate: int
    heads: int
    key_heads: int
    head_width: int
    vocabulary: int

    def layers(self) -> list[tuple[int, int]]:
        """(outputs, inputs) of the products of one decoder layer, those that read the same input together."""
        queries, keys = self.heads * self.head_width, self.key_heads * self.head_width
        return [
            (queries + 2 * keys, self.hidden),
            (self.hidden, queries),
            (2 * self.intermediate, self.hidden),
            (self.hidden, self.intermediate),
        ]


def seconds(call: Callable[[], Any], device: str) -> float:
    """The median time of a call, over `SECONDS_EACH` and at least three calls, after one that does not count."""
    call()
    times: list[float] = []
    while len(times) < 3 or sum(times) < SECONDS_EACH:
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def rates(widths: Widths, dtype: torch.dtype, device: str) -> Rates:
    """The rates in one precision."""
    shapes = widths.layers()

    def over(make: Callable[[Tensor, Tensor, Tensor], Callable[[], Tensor]], sizes: Sequence[tuple[int, int]], tokens: int) -> float:
        spent = 0.0
        for outputs, inputs in sizes:
            x, weight, back = (_random(size, dtype, device) for size in ((tokens, inputs), (outputs, inputs), (tokens, outputs)))
            spent += seconds(make(x, weight, back), device)
        return sum(2 * tokens * outputs * inputs for outputs, inputs in sizes) / spent

    packed = 0.0
    if device == "cpu" and dtype == torch.float32:
        packed = over(_packed, shapes, TOKENS)
    head = [(widths.vocabulary, widths.hidden)]
    rows = min(TOKENS, tile_rows(widths.vocabulary))
    return Rates(
        forward=over(lambda x, weight, _: lambda: x @ weight.t(), shapes, TOKENS),
        backward=over(lambda _, weight, back: lambda: back @ weight, shapes, TOKENS),
        gradient=over(lambda x, _, back: lambda: back.t() @ x, shapes, TOKENS),
        packed=packed,
        head=over(lambda x, weight, _: lambda: x @ weight.t(), head, rows),
        attention=_attention(widths, dtype, device),
    )


def _packed(x: Tensor, weight: Tensor, _: Tensor) -> Callable[[], Tensor]:
    laid = torch.ops.mkldnn._reorder_linear_weight(weight)
    return lambda: torch.ops.mkldnn._linear_pointwise(x, laid, None, "none", [], "")


def _attention(widths: Widths, dtype: torch.dtype, device: str) -> float:
    """Scores in float32 and their use in `dtype`, heads that share keys together, as `jobs.training.segment_attention` does it."""
    rows, group = TOKENS // ROW_TOKENS * widths.key_heads, widths.heads // widths.key_heads
    query = _random((rows, group * ROW_TOKENS, widths.head_width), dtype, device)
    key = _random((rows, ROW_TOKENS, widths.head_width), dtype, device)
    shares = _random((rows, group * ROW_TOKENS, ROW_TOKENS), dtype, device)
    spent = seconds(lambda: torch.bmm(query.float(), key.float().transpose(1, 2)), device)
    spent += seconds(lambda: torch.bmm(shares, key), device)
    return 2 * 2 * rows * group * ROW_TOKENS * ROW_TOKENS * widths.head_width / spent


def _random(size: tuple[int, ...], dtype: torch.dtype, device: str) -> Tensor:
    return torch.rand(size, device=device).to(dtype)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _bandwidth(device: str) -> float:
    source = torch.zeros(COPIED_BYTES // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED_BYTES / seconds(lambda: target.copy_(source), device)


def _runtime_bytes(device: str) -> int:
    """What the process holds once everything is imported that training imports."""
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama  # noqa: F401

    if device == "cuda":
        torch.zeros(1, device=device)
        free, total = torch.cuda.mem_get_info()
        return total - free - torch.cuda.memory_reserved()
    return int(psutil.Process().memory_info().rss)


def main(arguments: Sequence[str]) -> int:
    """Runs the probe."""
    started = time.perf_counter()
    device, widths = arguments[0], Widths(*map(int, arguments[1:]))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    runtime = _runtime_bytes(device)
    tiny = torch.zeros(1, device=device)
    precisions = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    found = {
        "rates": {name: asdict(rates(widths, dtype, device)) for name, dtype in precisions.items()},
        "bandwidth": _bandwidth(device),
        "call_seconds": seconds(lambda: tiny.add_(1), device),
        "runtime_bytes": runtime,
        "probe_seconds": time.perf_counter() - started,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
