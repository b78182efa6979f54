"""What a training step keeps and needs in passing, tensor by tensor: the one place of formulas behind the estimate of activations.

Every entry is a tensor that the engine really makes, named after what it is, with its size in bytes. T are the tokens that pass through
the model, b the bytes of a number in the arithmetic, s those in the residual stream. benchmarks/estimate.py holds the sums against the
allocator. Mixtures of experts are counted by the experts that a token takes; other departures from the usual decoder layer are not known.
"""

from __future__ import annotations

from dataclasses import dataclass

from jobs.planning.batches import BatchShape
from jobs.planning.shape import ModelShape
from jobs.planning.way import Way

# Equal to those of the engine, which imports torch; tests hold them together.
TILE_NUMBERS = 2**24
LEAST_TILE_ROWS = 16
KEPT_SHARES_TOKENS = 192
QUERIES_AT_ONCE = 512

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
    def query_width(self) -> int:
        """Numbers of all queries of a token."""
        return self.shape.heads * self.shape.head_width

    @property
    def key_width(self) -> int:
        """Numbers of all keys of a token."""
        return self.shape.key_heads * self.shape.head_width

    @property
    def mlp_width(self) -> int:
        """Numbers within the MLP, of all experts that a token takes."""
        return self.shape.intermediate * self.shape.active_experts


def kept_by_layer(step: Step) -> Sizes:
    """What one decoder layer keeps from its forward to its backward pass."""
    return {**_norms(step), **_linear_inputs(step), **_attention(step), **_mlp(step)}


def _norms(step: Step) -> Sizes:
    """Each norm keeps its input in float32: the residual stream itself where that is float32, else a copy."""
    count, numbers = step.shape.norms_per_layer, step.tokens * step.shape.hidden
    sizes = {"norm inputs, float32": count * 4 * numbers}
    if step.way.trains_base:
        sizes["normalised, for the gradient of the norms' weights"] = count * 4 * numbers
    return sizes


def _linear_inputs(step: Step) -> Sizes:
    """What trained or adapted layers keep to make their weights' gradients; the inputs of output projection and of the MLP's last layer
    are the attention's and the MLP's own results.
    """
    way, numbers, shape = step.way, step.tokens * step.shape.hidden, step.shape
    if not way.trains_base and not way.rank:
        return {}
    readers = sum(linear.layer == 0 and not linear.leads_out for linear in shape.linears)
    adapted = _adapted_layers(step)
    sizes: Sizes = {}
    if way.mixes:  # autocast narrows the input anew for each layer that reads it, and PEFT that of each adapter
        sizes["inputs of linear layers"] = readers * way.compute_bytes * numbers
    else:  # layers that read the same norm keep the same tensor
        sizes["inputs of linear layers"] = 2 * way.stream_bytes * numbers
    if not own_attention(step) or (way.mixes and way.rank):  # the rows' outputs joined, or narrowed for the adapter
        sizes["input of the output projection"] = way.compute_bytes * step.tokens * step.query_width
    if way.rank:
        sizes["inputs times A"] = adapted * way.rank * way.compute_bytes * step.tokens
    return sizes


def _adapted_layers(step: Step) -> float:
    """Adapters in one decoder layer, on average."""
    return len(step.way.targets) / step.shape.layers


def _attention(step: Step) -> Sizes:
    """Grids of like rows by our own attention keep keys once and the shares of short rows; torch's kernel wants keys for every head."""
    batch, width = step.batch, step.way.compute_bytes
    queries, keys = width * step.tokens * step.query_width, width * step.tokens * step.key_width
    sizes = {"attention output": queries, "queries": queries}
    if not own_attention(step):
        repeated = 2 * (queries if step.key_width < step.query_width else keys)
        return sizes | {"keys and values, repeated for every head": repeated, "log-sums": 4 * step.tokens * step.shape.heads}
    sizes["keys and values"] = 2 * keys
    if batch.longest <= KEPT_SHARES_TOKENS:
        sizes["attention shares"] = width * step.shape.heads * batch.squares
    return sizes


def _mlp(step: Step) -> Sizes:
    width, numbers = step.way.compute_bytes, step.tokens * step.mlp_width
    if not step.shape.gated:
        return {"MLP before and after its activation": 2 * width * numbers}
    sizes = {"gate and up": 2 * width * numbers, "gate times up": width * numbers}
    if not step.way.engine.compile:
        sizes["activated gate"] = width * numbers
    return sizes


def own_attention(step: Step) -> bool:
    """Whether rows are computed by the engine's own attention."""
    return step.way.packed and step.way.engine.segment_attention and step.way.on_cpu


def held_by_head(step: Step) -> Sizes:
    """What the output layer and the loss hold at their worst moment, beside all that the layers keep."""
    way, shape, labels = step.way, step.shape, step.batch.labels
    b, vocabulary = way.compute_bytes, shape.vocabulary
    sizes: Sizes = {"hidden states of labels and their gradient": labels * shape.hidden * (way.stream_bytes + 2 * b)}
    if not way.engine.label_head:
        logits = step.tokens * vocabulary
        return sizes | {"logits": logits * b + labels * vocabulary * 4 * 3}
    first = min(labels, tile_rows(vocabulary))
    second = min(labels - first, first)
    making, gradient = vocabulary * tile_number_bytes(way), vocabulary * b * first
    passing = {"logits tile": max(first * making, second * making + (gradient if second else 0))}
    if way.trains_base:
        sizes["gradient of the output layer"] = 4 * vocabulary * shape.hidden
        if b < 4:
            sizes["output layer, narrow"] = b * vocabulary * shape.hidden
        adding = {"gradient of a tile": gradient, "its part of the output layer's": (b + (4 if b < 4 else 0)) * vocabulary * shape.hidden}
        passing = max(passing, adding, key=lambda held: sum(held.values()))
    return sizes | passing


def tile_number_bytes(way: Way) -> int:
    """Bytes for each logit of a tile at the worst moment of making its loss and its gradient: the logits as they come (b) and in float32,
    their powers, shares, the wanted one (bool and float32) and the difference.
    """
    return way.compute_bytes + (0 if way.compute_bytes == 4 else 4) + 4 * 4 + 1


def tile_rows(vocabulary: int) -> int:
    """Rows of a tile of logits (`jobs.training.cross_entropy.tile_rows`)."""
    return max(LEAST_TILE_ROWS, TILE_NUMBERS // vocabulary)


def held_by_layer_backward(step: Step) -> Sizes:
    """What the backward pass of one layer needs in passing, at its worst moment: in the MLP, where tensors are widest."""
    way, b = step.way, step.way.compute_bytes
    mlp, hidden = step.tokens * step.mlp_width, step.tokens * step.shape.hidden
    sizes: Sizes = {"gradients within the MLP": 3 * b * mlp, "gradients of the residual stream": 2 * way.stream_bytes * hidden}
    if own_attention(step):
        square = min(step.batch.squares, step.batch.rows * step.batch.longest * QUERIES_AT_ONCE)
        scores = step.shape.heads * square * (4 + 4 + b)
        if scores > sizes["gradients within the MLP"]:
            sizes = {"attention scores and their gradients": scores, **{key: sizes[key] for key in ("gradients of the residual stream",)}}
    return sizes


def kept_whole(step: Step) -> Sizes:
    """What is kept once, whatever the number of layers."""
    way = step.way
    cosines = 2 * way.stream_bytes * step.tokens * step.shape.head_width
    sizes: Sizes = {"rotary tables": cosines, "embedded tokens": way.stream_bytes * step.tokens * step.shape.hidden}
    if way.mixes:
        trained = [linear.numbers for linear in step.shape.linears] if way.trains_base else []
        adapters = [way.rank * (linear.inputs + linear.outputs) for linear in way.targets]
        sizes["narrow copies of weights"] = way.compute_bytes * sum(trained + adapters)
    return sizes
