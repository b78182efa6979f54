"""The estimate against the allocator: small models trained for real, every part that the engine keeps or makes in passing."""

import json
from pathlib import Path
from string import ascii_lowercase

import numpy as np
import pytest
import torch

from benchmarks.memory import measure
from jobs.data.encoding import Encoded
from jobs.evaluation import generation, likelihood
from jobs.export import parity
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.models import reading
from jobs.models.loading import DTYPES, load_model
from jobs.planning import passing, phases, tensors
from jobs.planning import way as ways
from jobs.planning.batches import RowLengths
from jobs.planning.compiled import compiled_regions, geometries
from jobs.planning.estimate import estimate
from jobs.planning.memory import standing
from jobs.planning.shape import read_shape
from jobs.planning.way import choose_way
from jobs.planning.weights import gradient_bytes
from jobs.run import PARITY_ROWS, apply_method
from jobs.spec import load_spec
from jobs.training import checks, cross_entropy, loss, optimiser, region, segment_attention
from jobs.training.checks import choose_forward
from jobs.training.layout import Block, Segment
from tests.jobs.planning.test_shape import CPU
from tests.tiny import make_tiny_model, tiny_config

ROWS = 4
# Position numbers, norms' weights, places of labels: what is too small to be counted, but not beside so small a model.
CLOSE = 0.03


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Wide enough for all parts to show: a vocabulary whose logits weigh, heads that share keys, four layers."""
    config = tiny_config(vocab_size=2048, hidden_size=128, intermediate_size=320, num_hidden_layers=4, tie_word_embeddings=True)
    return make_tiny_model(tmp_path_factory.mktemp("measured") / "m", config=config)


@pytest.fixture(scope="module")
def biased(tmp_path_factory):
    """The same with biases."""
    sizes = {"vocab_size": 2048, "hidden_size": 128, "intermediate_size": 320, "num_hidden_layers": 4}
    config = tiny_config(**sizes, tie_word_embeddings=True, attention_bias=True, mlp_bias=True)
    return make_tiny_model(tmp_path_factory.mktemp("measured") / "b", config=config)


@pytest.fixture(autouse=True)
def _uncompiled(tmp_path, monkeypatch):
    monkeypatch.setenv("GRAFT_REGIONS", str(tmp_path / "none"))
    yield
    region.use_libraries(None)


def written(folder, model, method, length, precision, **changes):
    """A spec whose rows are all `length` tokens long (a byte is a token), two thirds of them answer, and have no beginning in common."""
    rows = [{"prompt": letter * (length // 3), "completion": "." * length} for letter in ascii_lowercase[: 3 * ROWS]]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    training = {"micro_batch": ROWS, "gradient_accumulation": 1, "max_length": length, "precision": precision, "max_steps": 4}
    spec = {
        "model": {"path": str(model)}, "data": {"train": "rows.jsonl", "validation_share": 0}, "method": {"id": method},
        "training": training | changes.pop("training", {}), "evaluation": {"generate": False, "retention": False},
        "export": {"merge": "none"}, **changes,
    }  # fmt: skip
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder / "spec.json"


def _hold(path, length, folder, close=CLOSE):
    """Asserts that training adds as much to what is there when it begins (of other tests too) as the estimate says."""
    found, spec = measure(path, folder, 2), load_spec(path)
    shape, plan = read_shape(Path(spec.model.path)), found["plan"]
    lengths = RowLengths.of([length], rows=plan["train_rows"], label_share=plan["label_tokens"] / plan["train_tokens"])
    way = choose_way(spec, CPU, shape)
    there = sum(size for part, size in standing(shape, way).items() if part != "optimiser")
    there += gradient_bytes(shape, way) if way.flat else 0
    added = estimate(spec, CPU, shape, lengths).memory.training - there
    assert added == pytest.approx(found["peak_bytes"] - found["begin_bytes"], rel=close)


@pytest.mark.parametrize(("length", "precision"), [(90, "float32"), (300, "bfloat16")])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_peak_of_training_is_the_estimated_one(method, length, precision, model, tmp_path):
    _hold(written(tmp_path, model, method, length, precision), length, tmp_path)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("lora", {"engine": {"segment_attention": False}}),
        ("full", {"engine": {"flat_optimiser": False}}),
        ("full", {"training": {"optimiser": "adafactor"}}),
        ("lora_8bit", {}),
    ],
)
def test_other_ways_are_estimated_too(method, changes, model, tmp_path):
    _hold(written(tmp_path, model, method, 90, "bfloat16", **changes), 90, tmp_path)


def test_without_a_flat_optimiser_gradients_are_not_there_while_the_next_step_begins(model, tmp_path, monkeypatch):
    """As for many weights on a CPU."""
    for module in (ways, optimiser):
        monkeypatch.setattr(module, "FLAT_NUMBERS_ON_CPU", 1)
    _hold(written(tmp_path, model, "full", 90, "bfloat16"), 90, tmp_path)


@pytest.mark.parametrize(("method", "length"), [("full", 90), ("lora", 300)])
def test_with_gradient_checkpointing_only_the_inputs_of_layers_are_kept(method, length, model, tmp_path):
    _hold(written(tmp_path, model, method, length, "bfloat16", training={"gradient_checkpointing": True}), length, tmp_path)


# What an adapter keeps in a step; virtual tokens add a batch's rows, and all logits.
@pytest.mark.parametrize(
    "method",
    ["dora", "vera", "loha", "lokr", "oft", "ia3", "bitfit", "block_sparse", "bottleneck_adapter", "prompt_tuning", "prefix_tuning"],
)
def test_what_methods_keep_is_estimated(method, biased, tmp_path):
    path = written(tmp_path, biased, method, 90, "bfloat16")
    _hold(path, 90, tmp_path, close=0.1)
    spec, shape = load_spec(path), read_shape(biased)
    assert estimate(spec, CPU, shape, RowLengths.of([90], rows=12)).guess == ""


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_libraries_asked_for_are_those_that_a_run_calls(method, precision, model, tmp_path):
    method_entry, spec = get_method(method), load_spec(written(tmp_path, model, method, 90, precision))
    shape, way = read_shape(model), choose_way(spec, CPU, read_shape(model))
    loaded = load_model(model, precision=precision, trains_base=method == "full")
    trained = apply_method(method_entry, loaded, method_entry.resolve({}), Setup(seed=0))
    rows = [Encoded(np.arange(first, first + 90, dtype=np.int32), np.arange(90) > 30) for first in range(3)]
    forward, reasons = choose_forward(trained, rows, dtype=DTYPES[precision], device="cpu")
    assert not reasons
    region.use_libraries(tmp_path)
    batch = forward.batch(rows)
    with forward.running(batch):
        torch.autograd.backward(forward.loss_sum(batch))
    called = set(region.wanted())
    asked = set(geometries(shape, way))
    assert {geometry.region for geometry in asked & called} == {"cross_entropy_tile", "attend", "gate_back"}
    assert compiled_regions(tmp_path, shape, way) == frozenset()
    for geometry in asked & called:
        (tmp_path / geometry.file_name).touch()
    assert compiled_regions(tmp_path, shape, way) == {"cross_entropy_tile", "attend", "gate_back"}


def test_the_engines_own_sizes_are_the_planners():
    assert (tensors.PLACES_AT_ONCE, tensors.KEPT_TOKENS) == (segment_attention.PLACES_AT_ONCE, segment_attention.KEPT_TOKENS)
    assert (phases.CHECKED_ROWS, phases.CHECKED_TOKENS) == (checks._ROWS, checks._TOKENS)
    assert ways.FLAT_NUMBERS_ON_CPU == optimiser.FLAT_NUMBERS_ON_CPU
    assert passing.ADDED_NUMBERS == cross_entropy.ADDED_NUMBERS
    assert phases.QUANTISED_AT_ONCE == reading._NUMBERS_AT_ONCE
    assert phases.EVALUATED_TOKENS == loss._BATCH_TOKENS == likelihood.BATCH_TOKENS
    assert phases.LIKELIHOOD_LOGIT_BYTES == likelihood.LOGIT_BYTES
    assert (phases.CACHE_TOKENS, phases.GENERATION_ROWS) == (generation.CACHE_TOKENS, generation.MAX_ROWS)
    assert (phases.COMPARED_POSITIONS, phases.COMPARED_TOKENS, phases.COMPARED_ROWS) == (
        parity.POSITIONS, parity.POSITIONS_PER_ROW, PARITY_ROWS,
    )  # fmt: skip


@pytest.mark.parametrize("longest", [1, 95, 96, 97, 193, 500])
def test_chunks_are_the_engines(longest):
    block = Block.of([Segment(0, longest)])
    assert tensors.chunks(longest) == [(chunk.start, chunk.stop) for chunk in segment_attention._chunks(block)]
