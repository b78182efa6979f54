"""Memory of the phases around training: before it, while models are measured, and while artifacts are made. Free of torch.

Each function gives the bytes beyond what rests there (`resting` in `jobs.planning.memory`).
"""

from __future__ import annotations

from jobs.planning.batches import RowLengths
from jobs.planning.passing import tile_rows
from jobs.planning.shape import ModelShape
from jobs.planning.way import NUMBER_BYTES, Way
from jobs.planning.weights import gradient_bytes
from jobs.spec import RunSpec

# Equal to those of the engine, which imports torch; tests hold them together.
CHECKED_ROWS, CHECKED_TOKENS = 3, 64
EVALUATED_TOKENS = 2048
LIKELIHOOD_LOGIT_BYTES = 2**28
CACHE_TOKENS = 16_384
GENERATION_ROWS = 64
QUANTISED_AT_ONCE = 2**17
COMPARED_POSITIONS, COMPARED_ROWS, COMPARED_TOKENS = 512, 8, 64

# For each number that bitsandbytes quantises on a CPU: itself and its share of the scale in float32, its code in int32 and in uint8.
QUANTISING_BYTES = 4 + 4 + 4 + 1


def loading(shape: ModelShape, way: Way) -> float:
    """Weights that are to be quantised are read one after the other: on a GPU one is there in the arithmetic's type, on a CPU a part of
    one, and the whole where its files hold another type.
    """
    if way.base_bits == 16:
        return 0.0
    largest = way.compute_bytes * max((linear.numbers for linear in shape.linears), default=0)
    if not way.on_cpu:
        return largest
    return QUANTISING_BYTES * QUANTISED_AT_ONCE + (largest if shape.dtype != way.precision else 0)


def preparing(shape: ModelShape, way: Way, lengths: RowLengths) -> float:
    """The checks before training (`training.checks`) hold the logits of a few rows twice, and their difference, in float32; weights that
    are to be updated as one are copied into their vector, beside which lies that of their gradients.
    """
    logits = 3 * 4 * CHECKED_ROWS * min(CHECKED_TOKENS, max(lengths.lengths)) * shape.vocabulary
    flat = 2 * gradient_bytes(shape, way) if way.flat else 0
    return max(logits + narrow_copies(shape, way), flat)


def evaluating(spec: RunSpec, shape: ModelShape, way: Way, lengths: RowLengths) -> float:
    """The widest of what an evaluation does: the loss, answers by likelihood (of the general probe, too), generated answers."""
    kinds = [_loss(shape, way, lengths)]
    if spec.evaluation.retention:
        kinds.append(_likelihood(shape, way))
    if spec.evaluation.generate:
        kinds.append(_generation(spec, shape, way, lengths))
    return narrow_copies(shape, way) + max(kinds)


def narrow_copies(shape: ModelShape, way: Way) -> float:
    """Autocast's of float32 weights: of the base where it trains."""
    return way.compute_bytes * shape.total_parameters if way.trains_base and way.compute_bytes < 4 else 0


def _in_layer(shape: ModelShape, way: Way, tokens: float) -> float:
    """What one layer makes without gradients: the branches of its MLP, their product, and some states of the residual stream."""
    b = way.compute_bytes
    return tokens * (b * 3 * shape.intermediate * shape.active_experts + (b + way.stream_bytes) * 2 * shape.hidden)


def _loss(shape: ModelShape, way: Way, lengths: RowLengths) -> float:
    """`cross_entropy.score`: a tile of logits in float32, and their logarithmic shares."""
    tokens = max(EVALUATED_TOKENS, *lengths.lengths)
    labels = min(tile_rows(shape.vocabulary), tokens * lengths.label_share)
    return max(2 * 4 * labels * shape.vocabulary, _in_layer(shape, way, tokens))


def _likelihood(shape: ModelShape, way: Way) -> float:
    """`evaluation.likelihood`: the logits of a batch, bounded by their bytes in float32 and by its tokens."""
    logits = min(LIKELIHOOD_LOGIT_BYTES // 4, EVALUATED_TOKENS * shape.vocabulary)
    return way.compute_bytes * logits


def _generation(spec: RunSpec, shape: ModelShape, way: Way, lengths: RowLengths) -> float:
    """The key-value cache of a batch of answers, its prompts in one layer, and the logits of its last tokens."""
    length = max(lengths.lengths) + spec.evaluation.max_new_tokens
    rows = max(1, min(GENERATION_ROWS, CACHE_TOKENS // length, spec.evaluation.rows))
    tokens = rows * length
    cache = 2 * way.compute_bytes * shape.layers * shape.key_heads * shape.head_width * tokens
    return cache + _in_layer(shape, way, tokens) + 4 * rows * shape.vocabulary


def exporting(spec: RunSpec, shape: ModelShape, way: Way, lengths: RowLengths, *, resting: float, runtime: float) -> float:
    """Logits of the trained model are kept (`export.parity`), in float32 where memory allows; the model that was stored is read back beside
    it, compared, and measured again where its weights differ from the trained ones.
    """
    numbers, narrow = shape.total_parameters, NUMBER_BYTES[way.precision]
    held = min(COMPARED_POSITIONS, COMPARED_ROWS * min(COMPARED_TOKENS, max(lengths.lengths))) * shape.vocabulary * 4
    quantised = sum(linear.numbers for linear in shape.linears) if way.base_bits < 16 else 0
    own, others = _widened(shape, numbers - quantised), _widened(shape, numbers)
    wide = way.device["memory_bytes"] - resting - runtime > (4 if way.trains_base else narrow) * numbers + 2 * own
    reference = held + (own if wide and narrow < 4 and not way.trains_base else 0.0)
    if not way.trains_base and spec.export.merge == "none":
        return reference
    stored = 4 if spec.export.dtype == "float32" else narrow
    compared = (others if wide and stored < 4 else 0.0) + 5 * 4 * COMPARED_TOKENS * shape.vocabulary
    return max(reference, held + stored * numbers + max(compared, evaluating(spec, shape, way, lengths)))


def _widened(shape: ModelShape, numbers: int) -> float:
    """In float32 (`parity.widened`), of so many numbers that are held in 16 bits: what is outside of the layers, and one layer."""
    outside = shape.parameters["embeddings"] + shape.parameters["head"]
    return 4 * (outside + (numbers - outside) / shape.layers)
