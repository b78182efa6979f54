"""AdapterFusion against its equations (Pfeiffer et al. 2020, arXiv:2005.00247)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from jobs.errors import UserError
from jobs.methods.adapter_fusion.tuner import Attention
from jobs.methods.registry import get_method
from jobs.methods.setup import Setup
from jobs.run import make_hooks
from tests.jobs.methods.block_models import TASKS, WIDTH, answer, applied, logits, plain_model, stirred, trained

METHOD = get_method("adapter_fusion")
SETTINGS = METHOD.resolve({})


def finished(name: str, folder: Path, method: str = "bottleneck_adapter", *, seed: int = 0, **settings: Any) -> Path:
    """The folder of an adapter as after a run."""
    model = applied(name, method, Setup(seed=seed, task=TASKS.get(name, "causal_lm")), **settings)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in trained(model).values():
            weight.add_(torch.randn_like(weight), alpha=0.2)
    make_hooks(get_method(method), model, {}, Setup(seed=0)).save(folder)
    return folder


def fused(name: str, *folders: Path, **settings: Any) -> Any:
    """A model with the fusion of adapters, as at step 0."""
    return applied(name, "adapter_fusion", Setup(seed=0, task=TASKS.get(name, "causal_lm"), adapters=folders), **settings)


def two(name: str, folder: Path) -> tuple[Path, Path]:
    """Two adapters of different sizes and non-linearities."""
    return finished(name, folder / "a", seed=1), finished(name, folder / "b", seed=2, size=7, non_linearity="tanh")


def test_the_attention_is_the_papers_equation():
    torch.manual_seed(1)
    attention, y, z = Attention(6), torch.randn(2, 5, 6), torch.randn(2, 5, 3, 6)
    stirred(attention)
    query, key, value = attention.query, attention.key, attention.value
    found = attention(y, z)
    assert found.shape == (2, 5, 6)
    for row in range(2):
        for token in range(5):
            h, outputs = y[row, token], z[row, token]
            shares = torch.softmax(torch.stack([(h @ query) @ (outputs[n] @ key) for n in range(3)]), dim=0)
            wanted = sum(shares[n] * (outputs[n] @ value) for n in range(3))
            assert torch.allclose(found[row, token], wanted, atol=1e-5)


def test_it_begins_with_the_identity_as_value():
    torch.manual_seed(1)
    attention = Attention(64)
    assert torch.equal(attention.value, torch.eye(64))
    assert float(attention.query.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert float(attention.key.detach().std()) == pytest.approx(0.02, rel=0.1)
    # one adapter alone is taken as it is, whatever the query
    z = torch.randn(3, 1, 64)
    assert torch.allclose(attention(torch.randn(3, 64), z), z[:, 0], atol=1e-6)


@pytest.mark.parametrize("name", ["llama", "bert", "t5"])
def test_attention_on_one_adapter_is_that_adapter(name, tmp_path):
    """With the shares all on one of two, the fused model computes what the model of that adapter does."""
    folders = two(name, tmp_path)
    for chosen, folder in enumerate(folders):
        model = fused(name, *folders)
        for module in model.modules():
            if isinstance(module, Attention):
                module.forward = lambda y, z, n=chosen: z[..., n, :]
        alone = PeftModel.from_pretrained(plain_model(name), folder)
        if name == "bert":  # each has a head of its own
            alone.base_model.model.classifier.modules_to_save["default"] = model.base_model.model.classifier.modules_to_save["default"]
        assert torch.equal(logits(model), logits(alone))


def test_query_key_and_value_alone_are_trained(tmp_path):
    model = fused("llama", *two("llama", tmp_path))
    assert {each.rpartition(".")[2] for each in trained(model)} == {"query", "key", "value"}
    assert sum(weight.numel() for weight in trained(model).values()) == 4 * 3 * WIDTH**2
    (answer(model) ** 2).sum().backward()
    received = {each for each, weight in model.named_parameters() if weight.grad is not None and bool(weight.grad.any())}
    assert received == trained(model).keys()
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(plain_model("llama")))
    assert {each.rpartition(".")[2] for each in trained(model)} == {"query", "key", "value"}


@pytest.mark.parametrize("method", ["bottleneck_adapter", "parallel_adapter"])
def test_its_file_is_complete_without_the_fused_adapters(method, tmp_path):
    folders = [finished("llama", tmp_path / str(seed), method, seed=seed) for seed in (1, 2, 3)]
    model = stirred(fused("llama", *folders))
    wanted = logits(model)
    make_hooks(METHOD, model, SETTINGS, Setup(seed=0)).save(tmp_path / "fused")
    for folder in folders:
        for file in folder.iterdir():
            file.unlink()
    for adapter in ("default", "other"):
        again = PeftModel.from_pretrained(plain_model("llama"), tmp_path / "fused", adapter_name=adapter)
        assert torch.equal(logits(again), wanted)
        assert not trained(again)
    with pytest.raises(ValueError, match="cannot be added into the weights"):
        model.merge_and_unload()


def test_adapters_beside_and_behind_a_module_are_fused_together(tmp_path):
    behind = finished("llama", tmp_path / "a", seed=1, placement="pfeiffer")
    beside = finished("llama", tmp_path / "b", "parallel_adapter", seed=2)
    model = fused("llama", behind, beside)
    layer, x = model.get_base_model().get_submodule("model.layers.0.mlp.down_proj"), torch.randn(1, 3, WIDTH)
    first, second = layer.fusion_blocks["default"]
    found = model.get_base_model().get_submodule("model.layers.0.mlp")(x)
    with model.disable_adapter():
        y = model.get_base_model().get_submodule("model.layers.0.mlp")(x)
    z = torch.stack([first(y), second(x)], dim=-2)
    assert torch.allclose(found, y + layer.fusion_attention["default"](y, z), atol=1e-5)


def test_the_values_are_held_near_the_identity(tmp_path):
    model = fused("llama", *two("llama", tmp_path))
    hooks = make_hooks(METHOD, model, SETTINGS, Setup(seed=0))
    assert float(hooks.penalty()) == 0
    values = {name: weight for name, weight in trained(model).items() if not hooks.decays(name)}
    assert {name.rpartition(".")[2] for name in values} == {"value"}
    assert len(values) == 4
    with torch.no_grad():
        next(iter(values.values()))[0, 1] += 3
    penalty = hooks.penalty()
    assert float(penalty) == pytest.approx(0.01 * 9)
    penalty.backward()
    assert float(next(iter(values.values())).grad[0, 1]) == pytest.approx(0.01 * 2 * 3)
    assert make_hooks(METHOD, model, METHOD.resolve({"value_penalty": 0}), Setup(seed=0)).penalty() is None


def lora_adapter(folder: Path) -> Path:
    make_hooks(get_method("lora"), applied("llama", "lora"), {}, Setup(seed=0)).save(folder)
    return folder


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (lambda folder: finished("llama", folder, placement="pfeiffer"), "at other places than the first one"),
        (lambda folder: finished("llama", folder, "compacter"), "Compacter's adapters share factors"),
        (lora_adapter, "it is of the type LORA, not a bottleneck adapter"),
        (lambda folder: finished("bert", folder), "at other places than the first one"),
        (lambda folder: folder, "No such file"),
    ],
)  # fmt: skip
def test_adapters_that_cannot_be_fused_are_refused(second, reason, tmp_path):
    folders = finished("llama", tmp_path / "a"), second(tmp_path / "b")
    with pytest.raises(UserError) as refused:
        fused("llama", *folders)
    assert (refused.value.code, refused.value.where["field"]) == ("adapter_unusable", "method.adapters")
    assert str(folders[1]) in refused.value.message
    assert reason in refused.value.message


def test_adapters_of_another_base_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"this one has no layer bert\.encoder"):
        fused("llama", finished("bert", tmp_path / "a"), finished("bert", tmp_path / "b"))
