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
COMPARED_POSITIONS, COMPARED_ROWS, COMPARED_TOKENS = 512, 8, 64


def loading(shape: ModelShape, way: Way) -> float:
    """Weights that are to be quantised are all read in 16 or 32 bits before the last of them has been; one is widened on the way."""
    if way.base_bits == 16:
        return 0.0
    largest = max((linear.numbers for linear in shape.linears), default=0)
    return way.compute_bytes * (sum(linear.numbers for linear in shape.linears) + 3 * largest)


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
    numbers = shape.total_parameters
    held = min(COMPARED_POSITIONS, COMPARED_ROWS * min(COMPARED_TOKENS, max(lengths.lengths))) * shape.vocabulary * 4
    wide = way.device["memory_bytes"] - resting - runtime > 2 * 4 * numbers
    # a weight that is a view of its group's matrix is widened beside it, and is a copy of its own from then on
    joined = sum(linear.numbers for linear in way.targets if not linear.expert) if way.fused_lora and way.base_bits == 16 else 0
    widened, after = (0.0, 0.0)
    if wide and not way.trains_base and way.compute_bytes < 4:
        quantised = sum(linear.numbers for linear in shape.linears) if way.base_bits == 4 else 0
        widened = 4 * joined + (4 - way.compute_bytes) * (numbers - quantised - joined)
        after = way.compute_bytes * joined
    reference = widened + held
    if not way.trains_base and spec.export.merge == "none":
        return reference
    stored = 4 if spec.export.dtype == "float32" else NUMBER_BYTES[way.precision]
    compared = (4 if wide else stored) * numbers + held + 5 * 4 * COMPARED_TOKENS * shape.vocabulary
    measured = stored * numbers + evaluating(spec, shape, way, lengths)
    return max(reference, after + held + max(compared, measured))
