"""What a training step makes and lets go of at once: at the output layer, and in the backward pass of one decoder layer.

Sizes in bytes, named and counted as in `jobs.planning.tensors`. A region (`jobs.training.regions`) that is compiled makes its results
alone. As it is written, torch makes a tensor for each operation, and those that exist at once are counted here, line by line of its source.
"""

from __future__ import annotations

from jobs.planning.tensors import Sizes, Step, chunks, kept_by_mlp
from jobs.planning.way import Way

# Equal to those of jobs.training.cross_entropy, which imports torch; tests hold them together.
TILE_NUMBERS = 2**24
LEAST_TILE_ROWS = 16
ADDED_NUMBERS = 2**22


def tile_rows(vocabulary: int) -> int:
    """Rows of a tile of logits (`jobs.training.cross_entropy.tile_rows`)."""
    return max(LEAST_TILE_ROWS, TILE_NUMBERS // vocabulary)


def held_by_head(step: Step) -> Sizes:
    """What the output layer and the loss hold at their worst moment, beside all that the layers keep (`LinearCrossEntropy.forward`)."""
    way, shape, labels = step.way, step.shape, step.batch.labels
    b, vocabulary = way.compute_bytes, shape.vocabulary
    narrow = 0 if way.stream_bytes == b else b
    sizes: Sizes = {"hidden states of labels and their gradient": labels * shape.hidden * (way.stream_bytes + narrow + b)}
    if not way.label_head:
        # all logits and those of the rows' own tokens beside the labels'; or these in float32, their shares, and the gradient of one
        taken = vocabulary * b * (2 * step.tokens + labels)
        return sizes | {"logits": max(taken, vocabulary * labels * 4 * 3)}
    first = min(labels, tile_rows(vocabulary))
    second = min(labels - first, first)
    # the gradient of the tile before stays until this one's is there
    tile = vocabulary * max(first * tile_number_bytes(way), second * tile_number_bytes(way) + (first * b if second else 0))
    passing = {"logits tile": tile}
    if way.trains_base:
        matrix = vocabulary * shape.hidden
        sizes |= {"gradient of the output layer": 4 * matrix, "output layer, narrow": narrow * matrix}
        # added to a float32 sum, a narrow product is widened
        added = (b + (4 if b < 4 else 0)) * min(matrix, ADDED_NUMBERS)
        adding = {"gradient of a tile": vocabulary * b * first, "its part of the output layer's": added}
        passing = max(passing, adding, key=lambda held: sum(held.values()))
    return sizes | passing


def tile_number_bytes(way: Way) -> int:
    """Bytes for each logit of a tile while its loss and its gradient are made (`regions.cross_entropy_tile`): the logits as they come and
    their gradient; as it is written, the logits in float32, their powers, shares, the wanted one (bool and float32) and the difference.
    """
    b = way.compute_bytes
    if "cross_entropy_tile" in way.compiled:
        return 2 * b
    return b + (4 if b < 4 else 0) + 4 * 4 + 1


def held_by_layer_backward(step: Step) -> Sizes:
    """What the backward pass of a layer holds at its worst moment, beyond what all layers keep; what it has let go of counts against it."""
    moments = (_down_backward(step), _activation_backward(step), _attention_backward(step))
    worst = max(moments, key=lambda held: sum(held.values()))
    return {**worst, "gradient of the residual stream": step.stream, **_weight_gradient(step)}


def _weight_gradient(step: Step) -> Sizes:
    """The gradient of one weight before it is added to the others'."""
    way = step.way
    if not way.trains_base:
        return {}
    largest = max((linear.numbers for linear in step.shape.linears), default=0)
    return {"gradient of one weight": largest * (way.compute_bytes + (4 if way.mixes else 0))}


def _down_backward(step: Step) -> Sizes:
    """The gradient of the MLP's product. `_OneProduct` makes it twice: by way of W, then with the adapter's part added."""
    return {"gradients within the MLP": step.inner * (2 if step.way.fused_lora else 1)}


def _activation_backward(step: Step) -> Sizes:
    """The gradient of the product, which itself has been let go of, and those of both branches, side by side."""
    way, b = step.way, step.way.compute_bytes
    if not step.shape.gated:
        return {"gradients within the MLP": 2 * step.inner}
    let_go = kept_by_mlp(step).get("gate times up", 0.0)
    if not way.elementwise:  # torch's own: of the activated branch and of `up`, then of `gate`
        made = 3 * step.inner
    else:
        made = 2 * step.inner if "gate_back" in way.compiled else step.inner / b * _gate_back_bytes(b)
    return {"gradients within the MLP": step.inner + made - let_go}


def _gate_back_bytes(b: int) -> int:
    """Float32 numbers of `regions.gate_back` as it is written: gate and the gradient (where they were narrow), the product with `up`, and
    three of the slope; or both gradients, wide, narrow, and joined.
    """
    widened = 2 * 4 if b < 4 else 0
    slope = widened + 4 + 3 * 4
    joined = widened + 2 * 4 + (2 * b if b < 4 else 0) + 2 * b
    return max(slope, joined)


def _attention_backward(step: Step) -> Sizes:
    """Of the chunk of queries that sees most keys, whose shares are computed again (`segment_attention._block_back`). The MLP's part of the
    layer has been let go of by then; torch's own kernel makes no scores.
    """
    way, b = step.way, step.way.compute_bytes
    if not way.grids:
        return {}
    widest = chunks(max(1, round(step.batch.longest)))[-1]
    numbers = step.shape.heads * min(step.batch.squares, step.batch.rows * step.batch.longest * (widest[1] - widest[0]))
    again = 4 + (0 if "attend" in way.compiled else 3 * 4) + b
    slope = 2 * b + (b if "attend" in way.compiled else 3 * 4)
    wide = 4 / b
    return {
        "gradients of queries, keys and values": 3 * step.queries + 2 * wide * step.keys,
        "queries and keys, float32": wide * (step.queries + step.keys),
        "attention scores and their gradients": numbers * max(again, slope),
        "the layer's MLP, done with": -sum(kept_by_mlp(step).values()),
    }
