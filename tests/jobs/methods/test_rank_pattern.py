"""Ranks of single layers: as they are written, upon every preset that takes them, and in what is saved, merged and resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from jobs.errors import UserError
from jobs.export.merge import merge
from jobs.methods.lora.layers import lora_layers
from jobs.methods.ranks import ranks_of, read_ranks, write_ranks
from jobs.methods.registry import all_methods, get_method
from jobs.spec import MethodSpec, RunSpec, TrainingSpec
from jobs.training import checkpoint
from jobs.training.checks import choose_forward
from jobs.training.forward import Forward
from tests.jobs.methods.lora_models import ROWS, adapt, load, logits, stir
from tests.jobs.training.reference import gradients, losses, make_model, make_rows, make_trainer, short
from tests.tiny import make_tiny_model

PATTERN = "q_proj: 2\nmodel.layers.1.self_attn.q_proj: 6\ndown_proj: 9"
PRESETS = ("lora", "rslora", "dora", "pissa", "olora", "lora_ga", "lora_plus", "qlora", "lora_8bit", "loftq")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("ranks") / "model")


def wanted(name: str) -> int:
    return 9 if "down_proj" in name else 4 if "q_proj" not in name else 6 if "layers.1" in name else 2


def test_every_preset_but_those_that_choose_ranks_themselves_has_the_setting():
    with_it = {method.id for method in all_methods() if any(setting.name == "rank_pattern" for setting in method.settings)}
    assert with_it == set(PRESETS)
    assert all(get_method(name).resolve({})["rank_pattern"] == "" for name in PRESETS)


@pytest.mark.parametrize("method", PRESETS)
def test_layers_have_their_ranks_and_the_download_has_them_too(folder, tmp_path, method):
    model, hooks = adapt(folder, method, rank=4, alpha=8.0, rank_pattern=PATTERN)
    assert {name: layer.r["default"] for name, layer in lora_layers(model)} == {name: wanted(name) for name, _ in lora_layers(model)}
    scale = {"rslora": 0.5}.get(method, 1.0)
    assert {layer.scaling["default"] for _, layer in lora_layers(model)} == {8.0 / rank**scale for rank in (2, 4, 6, 9)}
    tuned = logits(stir(model))
    hooks.save(tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    times = 2 if method in ("pissa", "olora", "lora_ga") else 1
    assert set(config["rank_pattern"].values()) == {2 * times, 6 * times, 9 * times}
    bits = get_method(method).base_bits(get_method(method).resolve({}))
    plain = PeftModel.from_pretrained(load(folder, bits), str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(plain), tuned, rtol=0, atol=3e-5 * float(tuned.abs().max()))
    if bits == 16:
        merge(folder, tmp_path / "adapter", tmp_path / "merged", shard_bytes=10**9)
        torch.testing.assert_close(logits(load(tmp_path / "merged")), tuned, rtol=0, atol=3e-5 * float(tuned.abs().max()))


@pytest.mark.parametrize("method", ["lora", "qlora", "rslora"])
def test_layers_of_different_ranks_share_one_product(folder, method):
    model = stir(adapt(folder, method, rank=4, rank_pattern=PATTERN)[0])
    plain = gradients(Forward(model, torch.float32, "cpu", packs=False, own_head=False), ROWS)
    forward, reasons = choose_forward(model, ROWS, dtype=torch.float32, device="cpu")
    assert (reasons, forward.lora is not None and forward.lora.whole) == ([], True)
    assert [2, 4, 4] in [group.ranks for group in forward.lora.groups]
    fused = gradients(forward, ROWS)
    assert fused.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(fused[name], gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()))


def test_a_run_goes_on_with_the_same_bits(tmp_path):
    spec = short(TrainingSpec(micro_batch=4, gradient_accumulation=1, checkpoint_every_steps=3), 6)
    straight, events = make_trainer(make_model("llama", "lora", rank_pattern=PATTERN), make_rows(), tmp_path / "straight", spec)
    straight.run()
    again, rest = make_trainer(make_model("llama", "lora", rank_pattern=PATTERN), make_rows(), tmp_path / "again", spec)
    middle = next(path for path in sorted((tmp_path / "straight" / "checkpoints").iterdir()) if path.name == "step-00000003")
    again.restore(middle)
    again.run()
    assert losses(rest) == losses(events)[3:]
    last = [load_file(checkpoint.newest([tmp_path / name]) / "weights.safetensors") for name in ("straight", "again")]
    assert all(torch.equal(tensor, last[1][name]) for name, tensor in last[0].items())


def test_the_longest_name_that_fits_counts_and_one_that_fits_none_is_refused(folder):
    layers = ["model.layers.0.q_proj", "model.layers.1.q_proj", "model.layers.1.k_proj", "model.layers.1.my_q_proj"]
    assert ranks_of({"1.q_proj": 3, "q_proj": 2}, layers) == ranks_of({"q_proj": 2, "1.q_proj": 3}, layers)
    assert ranks_of({"1.q_proj": 3, "q_proj": 2}, layers) == {"model.layers.0.q_proj": 2, "model.layers.1.q_proj": 3}
    with pytest.raises(UserError, match=r"names layers\.7\.q_proj, which no layer with an adapter is called or ends with"):
        adapt(folder, "lora", rank=4, rank_pattern="layers.7.q_proj: 2")
    with pytest.raises(UserError, match="must be empty with the start eva"):
        adapt(folder, "lora", rank=4, rank_pattern="q_proj: 2", start="eva")


def test_what_analyse_gives_is_read_as_lines_as_json_and_as_an_object():
    ranks = {"model.layers.0.self_attn.q_proj": 8, "down_proj": 32}
    assert write_ranks(ranks) == "model.layers.0.self_attn.q_proj: 8\ndown_proj: 32"
    assert read_ranks(write_ranks(ranks)) == read_ranks(json.dumps(ranks, indent=1)) == ranks
    assert read_ranks("\r\n  q_proj :8 \r\n\r\n") == {"q_proj": 8}
    given = {"model": {"path": "model"}, "data": {"train": "rows.jsonl"}, "method": {"id": "lora", "settings": {"rank_pattern": ranks}}}
    spec = RunSpec.from_json(given)
    assert RunSpec.from_json(spec.to_json()).method == spec.method == MethodSpec("lora", {"rank_pattern": ranks})
    assert get_method("lora").resolve(dict(spec.method.settings))["rank_pattern"] == write_ranks(ranks)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("q_proj: 8\nk_proj 8", "'k_proj 8' in line 2, which is not the name of a layer, a colon and a rank"),
        ("q_proj: eight", "'q_proj: eight' in line 1"),
        ("q_proj: 8.5", "in line 1"),
        ("q.*: 8", "in line 1"),
        ("\nq_proj: 0", "the rank 0 in line 2, which is not from 1 to 1024"),
        ("q_proj: 8\nq_proj: 9", "names q_proj in line 2 for the second time"),
        ('{"q_proj": 8, "q_proj": 9}', "names q_proj in line 2 for the second time"),
        ('{"q_proj": 8', "is not JSON"),
        (8, "not of type ranks"),
        ({"q_proj": True}, "'q_proj: True' in line 1"),
    ],
)
def test_a_line_that_is_none_is_named(text, reason):
    with pytest.raises(UserError) as refused:
        get_method("lora").resolve({"rank_pattern": text})
    assert refused.value.code == "method_setting"
    assert reason in refused.value.message
    assert refused.value.where == {"field": "rank_pattern"}


def test_the_models_card_tells_of_ranks_that_differ(folder: Path):
    _, hooks = adapt(folder, "pissa", rank=4, rank_pattern="q_proj: 2")
    assert "a plain LoRA of twice the ranks" in hooks.remark
