"""What a training step keeps from its forward to its backward pass, tensor by tensor.

Every entry is a tensor that the engine really keeps, named after what it is, with its size in bytes; who keeps it stands beside its
formula. T are the tokens that pass through the model, b the bytes of a number in the arithmetic, s those in the residual stream. Mixtures
of experts are counted by the experts that a token takes; other departures from the usual decoder layer are not known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.planning.batches import BatchShape
from jobs.planning.shape import ModelShape
from jobs.planning.way import Way

# Equal to those of jobs.training.segment_attention, which imports torch; tests hold them together.
PLACES_AT_ONCE = 96
KEPT_TOKENS = 192

Sizes = dict[str, float]


@dataclass(frozen=True)
class Step:
    """One micro-batch of one run."""

    shape: ModelShape
    way: Way
    batch: BatchShape

    @property
    def tokens(self) -> float:
        """T."""
        return self.batch.computed

    @property
    def stream(self) -> float:
        """Bytes of the residual stream once."""
        return self.way.stream_bytes * self.tokens * self.shape.hidden

    @property
    def queries(self) -> float:
        """Bytes of the queries of a layer, all heads."""
        return self.way.compute_bytes * self.tokens * self.shape.heads * self.shape.head_width

    @property
    def keys(self) -> float:
        """Bytes of the keys of a layer."""
        return self.way.compute_bytes * self.tokens * self.shape.key_heads * self.shape.head_width

    @property
    def inner(self) -> float:
        """Bytes of one branch of the MLP of a layer, all experts that a token takes."""
        return self.way.compute_bytes * self.tokens * self.shape.intermediate * self.shape.active_experts


def kept_by_layer(step: Step) -> Sizes:
    """What one decoder layer keeps."""
    return {**_norms(step), **_linear_inputs(step), **_adapter_results(step), **kept_by_attention(step), **kept_by_mlp(step)}


def _norms(step: Step) -> Sizes:
    """A norm that is a region keeps its input, the residual stream (`elementwise._RmsNorm`). transformers' own keeps a float32 copy of it,
    and where its weight trains the normalised values too.
    """
    count, numbers = step.shape.norms_per_layer, step.tokens * step.shape.hidden
    if step.way.elementwise:
        return {"norm inputs": count * step.stream}
    sizes = {"norm inputs, float32": count * 4 * numbers}
    if step.way.trains_base:
        sizes["normalised, for the gradient of the norms' weights"] = count * 4 * numbers
    return sizes


def _linear_inputs(step: Step) -> Sizes:
    """What trained or adapted layers keep to make their weights' gradients; the inputs of output projection and of the MLP's last layer
    are the attention's and the MLP's own results, but where each layer narrows its own.
    """
    way, numbers = step.way, step.tokens * step.shape.hidden
    if not way.trains_base and not way.keeps.reads:
        return {}
    if way.mixes and way.keeps.casts and way.adapter:
        inputs = sum(layer.inputs for layer in way.adapter.layers) / step.shape.layers
        return {"inputs of linear layers": way.compute_bytes * step.tokens * inputs}
    learning = step.shape.linears if way.trains_base else way.targets
    readers = [linear.part for linear in learning if not linear.layer and not linear.leads_out]
    sizes: Sizes = {}
    if way.mixes and way.trains_base:  # autocast narrows the input anew for each layer that reads it
        sizes["inputs of linear layers"] = len(readers) * way.compute_bytes * numbers
    else:  # layers that read the same norm keep the same tensor
        sizes["inputs of linear layers"] = len(set(readers)) * way.stream_bytes * numbers
    if not way.grids:  # the rows' outputs joined
        sizes["input of the output projection"] = step.queries
    return sizes


def _adapter_results(step: Step) -> Sizes:
    """What the method says that it keeps beside the layers' inputs, in one decoder layer; LoRA's results times A are kept by
    `fused_lora._OneProduct` too, which holds A and B narrow for the whole run.
    """
    way, keeps, b = step.way, step.way.keeps, step.way.compute_bytes
    sizes = {
        "results of the adapter": step.tokens * (b * keeps.token + 4 * keeps.token_wide),
        "updates made whole": b * keeps.made + 4 * keeps.made_wide,
        "narrow copies of the adapter": b * keeps.copied if way.mixes else 0,
    }
    return {name: size / step.shape.layers for name, size in sizes.items() if size}


def kept_by_attention(step: Step) -> Sizes:
    """Our own attention (`segment_attention`) keeps its output, the grids of queries, keys and values, and the shares of the keys that come
    early in a row. torch's kernel wants keys and values for every head.
    """
    sizes = {"attention output": step.queries, "queries": step.queries}
    if not step.way.grids:
        cached = step.way.adapter.cached * step.batch.rows if step.way.adapter else 0
        repeated = 2 * (step.queries if step.keys < step.queries else step.keys) * (1 + cached / step.tokens)
        return sizes | {"keys and values, repeated for every head": repeated, "log-sums": 4 * step.tokens * step.shape.heads}
    shares = step.way.compute_bytes * step.shape.heads * kept_shares(step.batch)
    return sizes | {"keys and values": 2 * step.keys, "attention shares": shares}


def chunks(longest: int) -> list[tuple[int, int]]:
    """The places of a row whose queries are computed at once, (start, stop) (`segment_attention._chunks`); a query of them sees the keys up
    to `stop`.
    """
    size = -(-longest // -(-longest // PLACES_AT_ONCE))
    return [(start, min(start + size, longest)) for start in range(0, longest, size)]


def kept_shares(batch: BatchShape) -> float:
    """Shares of one head that are kept, in all rows: those of chunks that see at most `KEPT_TOKENS` keys. Rows differ; the row that stands
    for them has their mean square.
    """
    typical = max(1, round(math.sqrt(batch.squares / batch.rows)))
    return batch.rows * sum((stop - start) * stop for start, stop in chunks(typical) if stop <= KEPT_TOKENS)


def kept_by_mlp(step: Step) -> Sizes:
    """A gated MLP as a region (`elementwise._Gate`) keeps both branches; transformers' own keeps the activated branch too. The product is
    kept by the last layer, where that trains or is adapted.
    """
    if not step.shape.gated:
        return {"MLP before and after its activation": 2 * step.inner}
    sizes = {"gate and up": 2 * step.inner}
    if not step.way.elementwise:
        sizes["activated gate"] = step.inner
    if step.way.trains_base or _keeps_product(step.way):
        sizes["gate times up"] = step.inner
    return sizes


def _keeps_product(way: Way) -> bool:
    """Whether the MLP's last layer has an adapter that keeps its input as it is."""
    narrowed = way.mixes and way.keeps.casts
    return way.keeps.reads and not narrowed and any(linear.part == "mlp" and linear.leads_out for linear in way.targets)


def kept_when_checkpointed(step: Step) -> Sizes:
    """What a layer keeps that is computed again."""
    return {"layer input": step.stream}


def kept_whole(step: Step) -> Sizes:
    """What is kept once, whatever the number of layers."""
    way = step.way
    tables = 2 * way.stream_bytes * step.tokens * step.shape.head_width
    sizes: Sizes = {
        "rotary tables": tables,
        "input of the last norm": step.stream if way.elementwise else 4 * step.tokens * step.shape.hidden,
    }
    if way.mixes:  # autocast keeps them until the backward pass is over
        trained = [linear.numbers for linear in step.shape.linears] if way.trains_base else []
        sizes["narrow copies of weights"] = way.compute_bytes * sum(trained)
    return sizes
