"""The parts of the merge that are exact by themselves: rounding, products, and the weights of a 4-bit base."""

import re

import numpy as np
import pytest
import torch
from transformers import GPT2Config

from jobs.export.dequantised import dequantised_weights, requantised_weights
from jobs.export.floats import ARRAYS, narrow, widen
from jobs.export.merge import merge
from jobs.export.updates.product import SAME_ORDER, product
from jobs.models.loading import load_model
from tests.jobs.export.adapters import make_adapter, stored
from tests.tiny import VOCABULARY, make_tiny_model


def all_kinds_of_floats():
    """Ties in both directions, their neighbours, subnormal numbers, zeros of both signs and the largest ones, of both 16-bit formats."""
    upper = np.arange(0, 1 << 16, dtype=np.uint32) << 16
    bits = np.concatenate([upper | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF, 0x1000, 0x0FFF, 0x1001)])
    values = bits.view(np.float32)
    return values[np.isfinite(values)]


@pytest.mark.parametrize(("dtype", "named"), [("BF16", torch.bfloat16), ("F16", torch.float16), ("F32", torch.float32)])
def test_numbers_are_rounded_and_widened_as_torch_does(dtype, named):
    values = all_kinds_of_floats()
    expected = torch.from_numpy(values).to(named)
    fits = torch.isfinite(expected).numpy()
    assert fits.sum() > 100_000
    rounded = np.empty(values.shape, ARRAYS[dtype])
    assert narrow(values.copy(), dtype, rounded) == fits.all()
    kept = np.ascontiguousarray(values[fits])
    rounded = np.empty(kept.shape, ARRAYS[dtype])
    assert narrow(kept.copy(), dtype, rounded)
    assert rounded.tobytes() == expected[torch.from_numpy(fits)].view(torch.uint8).numpy().tobytes()
    back = np.empty(kept.shape, np.float32)
    widen(rounded, dtype, back)
    assert back.tobytes() == expected[torch.from_numpy(fits)].float().numpy().tobytes()


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf, 3.4e38])
def test_a_number_that_is_not_finite_once_rounded_is_noticed(number):
    values = np.array([[1.0, number]], np.float32)
    assert not narrow(values, "BF16", np.empty((1, 2), np.uint16))
    assert narrow(np.array([-3.3e38], np.float32), "BF16", np.empty(1, np.uint16))


@pytest.mark.parametrize("rank", [1, 3, 8, 16, 17, 64, 100, SAME_ORDER, SAME_ORDER + 1, 512])
@pytest.mark.parametrize("shape", [(576, 192), (37, 1001), (1536, 576)])
def test_products_have_torchs_bits(rank, shape):
    generator = torch.Generator().manual_seed(rank)
    left, right = torch.randn(shape[0], rank, generator=generator), torch.randn(rank, shape[1], generator=generator)
    whole = (left @ right).numpy()
    assert np.array_equal(product(left.numpy(), right.numpy()), whole)
    assert np.array_equal(product(left.numpy()[5:29], right.numpy()), whole[5:29])


GPT2 = {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}


@pytest.mark.parametrize("config", [None, GPT2Config(**GPT2)], ids=["llama", "gpt2, whose weights lie across"])
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_base_quantised_from_its_files_is_the_loaded_one(tmp_path, precision, config):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16, config=config)
    loaded = dequantised_weights(load_model(base, precision=precision, trains_base=False, bits=4))
    read = requantised_weights(base, precision)
    before = stored(base)
    quantised = [name for name in before if read(name) is not None]
    assert sorted(quantised) == sorted(name for name in before if re.search(r"(_proj|c_attn|c_fc)\.weight$", name))
    for name in quantised:
        assert torch.equal(read(name), loaded(name)), name
        lost, size = (read(name) - before[name].float()).norm(), before[name].float().norm()
        assert 0 < lost < 0.2 * size, name


@pytest.mark.parametrize("dtype", ["base", "float32"])
def test_the_merge_into_dequantised_weights_rounds_them_to_the_stored_dtype(tmp_path, dtype):
    from peft import LoraConfig

    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj"]))
    changed, kept = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"
    coarse = {name: (stored(base)[name].float() * 3).round() / 3 for name in (changed, kept)}  # thirds: no bfloat16 holds them
    before = {name: value.clone() for name, value in coarse.items()}
    assert merge(base, adapter, tmp_path / "out", shard_bytes=10**9, dtype=dtype, dequantised=coarse.get) == "streamed"
    merge(base, adapter, tmp_path / "plain", shard_bytes=10**9, dtype="float32")
    update = stored(tmp_path / "plain")[changed] - stored(base)[changed].float()
    stored_as = torch.float32 if dtype == "float32" else torch.bfloat16
    found = stored(tmp_path / "out")
    assert torch.equal(found[kept], coarse[kept].to(stored_as))
    torch.testing.assert_close(found[changed].float(), coarse[changed].to(stored_as).float() + update, rtol=1e-2, atol=1e-2)
    assert not torch.equal(found[changed], coarse[changed].to(stored_as))
    assert all(torch.equal(coarse[name], before[name]) for name in coarse)  # what was given is left as it was
