"""Which adapters go together, by what is known of their runs."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from jobs.composition.combinations import COMBINATIONS
from jobs.composition.rules import Finished, difference, misfit, obstacle, unequal
from jobs.composition.spec import BLOCKS, LOW_RANK, CompositionSpec
from jobs.methods.registry import METHODS, get_method


def adapter(method: str = "lora", task: Any = "causal_lm", base: str = "one", **settings: Any) -> Finished:
    entry = get_method(method)
    return Finished(entry, entry.resolve(settings), task, base, base.title())


def test_what_a_method_claims_and_what_it_trained_decide_alone() -> None:
    fit = {name for name in METHODS if not obstacle(adapter(name))}
    assert {"lora", "qlora", "rslora", "pissa", "block_sparse"} <= fit
    assert not {"full", "dora", "loftq", "adalora", "ia3", "prompt_tuning"} & fit
    assert obstacle(adapter("loha")) == "what LoHa trains does not add up"
    assert "LoftQ" in obstacle(adapter("qlora", start="loftq"))
    assert "a head of its own" in obstacle(adapter("lora", task="regression"))


def test_base_kind_and_grid_must_be_those_of_the_first() -> None:
    assert difference(adapter("qlora"), adapter("rslora")) == ""
    assert difference(adapter(base="two"), adapter()) == "its base is Two, that of the first is One"
    assert difference(adapter("block_sparse"), adapter()) == "it is block-sparse, the first is low-rank (LoRA)"
    other = adapter("block_sparse", block_rows=8)
    assert difference(other, adapter("block_sparse")) == "its grid of blocks is 8 x 32, that of the first is 24 x 32"
    unknown = Finished(get_method("block_sparse"), {}, "causal_lm", "one", "One")
    assert difference(unknown, other) == ""


def test_blocks_are_only_collected() -> None:
    assert [name for name in COMBINATIONS if not misfit(name, BLOCKS)] == ["cat"]
    assert not any(misfit(name, LOW_RANK) for name in COMBINATIONS)


def test_factors_need_equal_ranks_as_far_as_they_are_known() -> None:
    four, eight, doubled = adapter(rank=4), adapter(rank=8), adapter("pissa", rank=4)
    assert unequal(COMBINATIONS["ties"], [four, eight]) == "TIES needs equal ranks, and these are 4, 8"
    assert unequal(COMBINATIONS["ties"], [four, doubled]) == ""
    assert unequal(COMBINATIONS["ties_svd"], [four, eight]) == unequal(COMBINATIONS["cat"], [four, eight]) == ""


def test_the_seed_of_the_split_is_its_own() -> None:
    body = {"model": {"path": "m"}, "adapters": [{"path": "a"}, {"path": "b"}], "seed": 3}
    assert CompositionSpec.from_json(body).as_run(LOW_RANK).seed == 3
    spec = CompositionSpec.from_json({**body, "split_seed": 7})
    assert (spec.seed, spec.as_run(LOW_RANK).seed) == (3, 7)
    assert CompositionSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize("module", ["jobs.composition.rules", "jobs.composition.spec"])
def test_rules_load_no_torch(module: str) -> None:
    code = f"import sys, {module}; print({{'torch', 'peft', 'safetensors'}} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"
