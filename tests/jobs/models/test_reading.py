"""A base is quantised in parts, to the bits of bitsandbytes, and its files leave the process's memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bitsandbytes.functional import int8_vectorwise_quant, quantize_4bit
from transformers import AutoModelForCausalLM, GPT2Config
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from jobs.models import reading
from jobs.models.loading import load_model
from jobs.models.mapped import Pages, weight_files
from jobs.models.quantisation import quantisation
from jobs.models.reading import quantise_int8, quantise_nf4
from tests.tiny import VOCABULARY, make_tiny_model, tiny_config

MEBI = 2**20
# Of a process that loads a model: the highest and the last resident size that its threads saw, less that before, in MiB.
PEAK = """
import sys, threading
from pathlib import Path
import psutil, torch
import bitsandbytes, transformers.models.llama.modeling_llama
from jobs.models.loading import load_model
torch.set_num_threads(1)
folder, bits = Path(sys.argv[1]), int(sys.argv[2])
resident, done, seen = psutil.Process().memory_info, threading.Event(), []
load_model(Path(sys.argv[3]), precision="bfloat16", trains_base=False, bits=bits)
before = resident().rss
def watch():
    while not done.wait(0.001):
        seen.append(resident().rss)
thread = threading.Thread(target=watch)
thread.start()
model = load_model(folder, precision="bfloat16", trains_base=False, bits=bits)
done.set()
thread.join()
print(max(seen) - before, resident().rss - before)
"""


@pytest.fixture(autouse=True)
def _in_many_parts(monkeypatch):
    monkeypatch.setattr(reading, "_NUMBERS_AT_ONCE", 2048)


@pytest.mark.parametrize("shape", [(96, 64), (33, 31), (1, 5000)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_parts_are_quantised_as_the_whole(shape, dtype):
    """Also where the last block of NF4 is not full, and where a byte is half used."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    data, state = quantise_nf4(weight)
    wanted, whole = quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    assert torch.equal(data, wanted)
    found, expected = state.as_dict(), whole.as_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value, name
    codes, scales = quantise_int8(weight)
    wanted, largest, _ = int8_vectorwise_quant(weight.to(torch.float16))
    assert torch.equal(codes, wanted)
    assert torch.equal(scales, largest)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("config", [tiny_config(), GPT2Config(vocab_size=VOCABULARY, n_embd=64, n_layer=2, n_head=4)])
def test_the_model_is_the_one_that_transformers_loads(bits, config, tmp_path):
    """Layers that lie across in the files (GPT-2's) too."""
    make_tiny_model(tmp_path, config=config, dtype=torch.bfloat16)
    found = load_model(tmp_path, precision="bfloat16", trains_base=False, bits=bits)
    own = dict(AUTO_QUANTIZER_MAPPING)
    options = {"dtype": torch.bfloat16, "device_map": {"": "cpu"}, "quantization_config": quantisation(bits, torch.bfloat16)}
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, **options).eval()
    assert own == AUTO_QUANTIZER_MAPPING
    assert own["bitsandbytes_4bit"].__module__.startswith("transformers.")
    state = found.state_dict()
    for name, value in wanted.state_dict().items():
        assert torch.equal(state[name], value), name
    assert state.keys() == wanted.state_dict().keys()


@pytest.mark.parametrize("bits", [8, 4])
def test_no_weight_stays_mapped_from_the_files(bits, tmp_path):
    make_tiny_model(tmp_path, config=tiny_config(), dtype=torch.bfloat16)
    assert weight_files(load_model(tmp_path, precision="bfloat16", trains_base=False, bits=16).parameters())
    assert not weight_files(load_model(tmp_path, precision="bfloat16", trains_base=False, bits=bits).parameters())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux, which tells what is mapped")
def test_pages_that_were_there_before_are_left_alone(tmp_path):
    """They may have been written to: what is let go of is read from the file again."""
    make_tiny_model(tmp_path / "before", config=tiny_config(), dtype=torch.bfloat16)
    make_tiny_model(tmp_path / "after", config=tiny_config(), dtype=torch.bfloat16)
    before = load_model(tmp_path / "before", precision="bfloat16", trains_base=False)
    pages = Pages()
    after = load_model(tmp_path / "after", precision="bfloat16", trains_base=False)
    with torch.no_grad():
        for model in (before, after):
            model.model.norm.weight.fill_(7.0)
    pages.were_read(pages.WINDOW)
    assert before.model.norm.weight.unique().tolist() == [7.0]
    assert after.model.norm.weight.unique().tolist() == [1.0]


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux")
def test_while_it_loads_only_the_quantised_weights_and_a_window_are_in_memory(tmp_path):
    """Of a model of 100 MiB. What the process takes for the first of its models is not counted."""
    config = tiny_config(hidden_size=768, intermediate_size=3072, num_hidden_layers=6, num_attention_heads=12, num_key_value_heads=12)
    make_tiny_model(tmp_path / "large", config=config, dtype=torch.bfloat16)
    make_tiny_model(tmp_path / "small", config=tiny_config(), dtype=torch.bfloat16)
    command = [sys.executable, "-c", PEAK, str(tmp_path / "large"), "4", str(tmp_path / "small")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    peak, rest = (int(word) / MEBI for word in done.stdout.split())
    stored = (tmp_path / "large" / "model.safetensors").stat().st_size / MEBI
    assert stored > 100
    quantised = stored * 4 / 16
    assert rest < 1.25 * quantised
    assert peak < 1.25 * quantised + Pages.WINDOW / MEBI + 15
