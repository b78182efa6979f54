"""The overlap of two block-sparse adapters, and several as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from jobs.methods.block_sparse.compose import BlockSparseFile, compose
from jobs.methods.block_sparse.overlap import Blocks, of_event, overlap, places
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.run import apply_method, make_hooks
from tests.jobs.methods.test_block_sparse import layers, logits, plain_model

METHOD = get_method("block_sparse")


def made(folder: Path, seed: int, **given: Any) -> Any:
    """A model with an adapter of its own, saved in `folder`; the numbers are as after some steps."""
    settings = METHOD.resolve({"block_rows": 8, "block_columns": 8, "blocks": 16, **given})
    model = apply_method(METHOD, plain_model(), settings, Setup(seed=seed))
    for layer in layers(model).values():
        torch.nn.init.normal_(layer.block_sparse_values["default"], std=0.1)
    make_hooks(METHOD, model, settings, Setup(seed=seed)).save(folder)
    return model


def deltas(model: Any) -> dict[str, torch.Tensor]:
    return {name: layer.get_delta_weight("default").detach() for name, layer in layers(model).items()}


def blocks(*positions: int, layer: int | None = 0, module: str = "q", n: int = 4, m: int = 5) -> Blocks:
    return Blocks(layer, module, n, m, frozenset(positions))


def test_overlap_counts_what_both_have():
    first = [blocks(1, 2, 3, 4), blocks(0, 1, layer=1), blocks(7, layer=2)]
    second = [blocks(5, 6, layer=1), blocks(3, 4, 9, 10)]
    found = overlap(first, second)
    assert [(each.layer, each.common, each.share, each.chance) for each in found.modules] == [(0, 2, 0.5, 0.2), (1, 0, 0.0, 0.1)]
    assert found.share == 2 / 6
    assert found.chance == pytest.approx((4 * 0.2 + 2 * 0.1) / 6)
    assert found.conflicts == 2 / (4 + 2 + 1 + 2 + 4 - 2)
    assert overlap(first, first).share == overlap(first, first).conflicts == 1


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="q of layer 0 is cut into 4 x 5 blocks by one adapter and 5 x 4 by the other"):
        overlap([blocks(1)], [blocks(1, n=5, m=4)])
    with pytest.raises(ValueError, match="no module in common"):
        overlap([blocks(1)], [blocks(1, module="v")])


def test_a_place_is_a_layer_and_a_module():
    assert places(["model.layers.3.self_attn.q_proj", "model.layers.11.mlp.experts.2.w1"]) == [
        (3, "self_attn.q_proj"), (11, "mlp.experts.2.w1"),
    ]  # fmt: skip
    assert places(["encoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.0.SelfAttention.q", "projection"]) == [
        (0, "encoder.block.layer.0.SelfAttention.q"), (0, "decoder.block.layer.0.SelfAttention.q"), (None, "projection"),
    ]  # fmt: skip


def test_files_and_events_tell_the_same(tmp_path):
    models = [made(tmp_path / name, seed) for seed, name in enumerate("ab")]
    files = [BlockSparseFile(tmp_path / name).blocks for name in "ab"]
    events = [of_event(make_hooks(METHOD, model, {}, Setup(seed=0)).observe()) for model in models]
    found = overlap(*files)
    assert {(each.layer, each.module): each for each in found.modules} == {(e.layer, e.module): e for e in overlap(*events).modules}
    assert len(found.modules) == 14
    pairs = [{name: set(layer.block_sparse_positions["default"].tolist()) for name, layer in layers(model).items()} for model in models]
    assert found.share == sum(len(pairs[0][name] & pairs[1][name]) for name in pairs[0]) / (14 * 16)
    assert found.chance == 0.25
    with pytest.raises(ValueError, match="does not hold all"):
        of_event({"modules": [{"layer": 0, "module": "q", "n": 4, "m": 5, "k": 3, "positions": [1, 2]}]})


def test_a_composed_adapter_is_the_weighted_sum(tmp_path):
    """Of adapters with other settings, and one of which adapts fewer modules."""
    first = made(tmp_path / "a", 0, alpha=2.0)
    second = made(tmp_path / "b", 1, targets="attention", blocks=9)
    found = compose([(tmp_path / "a", 1.0), (tmp_path / "b", -0.5)], tmp_path / "out")
    again = PeftModel.from_pretrained(plain_model(), tmp_path / "out")
    one, other = deltas(first), deltas(second)
    assert len(one) == 14
    assert len(other) == 8
    for name, delta in deltas(again).items():
        wanted = one[name] - 0.5 * other.get(name, torch.zeros(()))
        assert torch.allclose(delta, wanted, rtol=1e-5, atol=1e-7), name
    both = [BlockSparseFile(tmp_path / name).blocks for name in "ab"]
    assert found.blocks == 14 * 16 + 8 * 9 - found.conflicts
    assert found.share == found.conflicts / found.blocks == overlap(*both).conflicts
    assert 0 < found.conflicts < 8 * 9
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["base_model_name_or_path"] is None
    for layer in layers(again).values():
        scores, positions = layer.block_sparse_scores["default"].detach().flatten(), layer.block_sparse_positions["default"].long()
        assert set(scores.topk(len(positions)).indices.tolist()) == set(positions.tolist()), "it can be trained on"
    assert float((logits(again) - logits(plain_model())).abs().max()) > 0.1


def test_one_alone_composed_is_itself(tmp_path):
    model = made(tmp_path / "a", 0)
    assert compose([(tmp_path / "a", 1.0)], tmp_path / "out").share == 0
    again = PeftModel.from_pretrained(plain_model(), tmp_path / "out")
    assert all(torch.allclose(delta, deltas(again)[name], rtol=1e-6, atol=0) for name, delta in deltas(model).items())


@pytest.mark.parametrize("case", ["grids", "bases", "kinds", "heads", "torn"])
def test_what_cannot_be_composed_is_refused(case, tmp_path):
    from safetensors.torch import load_file, save_file

    made(tmp_path / "a", 0)
    made(tmp_path / "b", 1, **({"block_rows": 4} if case == "grids" else {}))
    config, weights = tmp_path / "b/adapter_config.json", tmp_path / "b/adapter_model.safetensors"
    body, tensors = json.loads(config.read_text()), load_file(weights)
    if case == "bases":
        (tmp_path / "a/adapter_config.json").write_text(json.dumps(body | {"base_model_name_or_path": "one"}))
        config.write_text(json.dumps(body | {"base_model_name_or_path": "other"}))
    elif case == "kinds":
        config.write_text(json.dumps(body | {"peft_type": "LORA"}))
    elif case == "heads":
        save_file(tensors | {"base_model.model.score.weight": torch.zeros(2, 64)}, weights)
    elif case == "torn":
        save_file({name: tensor for name, tensor in tensors.items() if not name.endswith("0.mlp.up_proj.block_sparse_values")}, weights)
    reasons = {
        "grids": "different blocks", "bases": "different bases: one, other", "kinds": "of the kind LORA", "heads": "more than blocks",
        "torn": "lacks the tensor .*up_proj.block_sparse_values",
    }  # fmt: skip
    with pytest.raises(ValueError, match=reasons[case]):
        compose([(tmp_path / "a", 1.0), (tmp_path / "b", 1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pages_need_no_torch_for_it():
    script = (
        "import sys\nimport jobs.methods.block_sparse.overlap\nassert 'numpy' not in sys.modules\n"
        "import jobs.methods.block_sparse.compose\nassert not {'torch', 'peft'} & set(sys.modules)\nprint('light')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "light\n", done.stderr
