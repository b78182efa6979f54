"""The folder as attacks use it: each is refused by name before any loader sees it, quickly and without torch."""

import json
import os
import struct
import subprocess
import sys
import time

import pytest

from jobs.errors import UserError
from jobs.models.inspect import fetched, inspect_model
from tests.tiny import VOCABULARY, make_tiny_model, tiny_config


@pytest.fixture
def model(tmp_path):
    return make_tiny_model(tmp_path / "model")


@pytest.fixture
def sharded(tmp_path):
    return make_tiny_model(tmp_path / "model", shard_bytes=150_000)


def refusal(folder):
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        inspect_model(folder)
    assert time.monotonic() - start < 5
    assert caught.value.code == "model_unusable"
    return caught.value.message


def edit(path, **changes):
    body = json.loads(path.read_text())
    path.write_text(json.dumps({**body, **changes}))


def write_weights(path, header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_facts_are_those_of_the_files(sharded):
    facts = inspect_model(sharded)
    assert (facts.architecture, facts.layers, facts.hidden_size, facts.vocabulary) == ("LlamaForCausalLM", 2, 64, VOCABULARY)
    attention, mlp, norms = 64 * 64 * 2 + 2 * 64 * 32, 3 * 64 * 128, 2 * 64
    assert facts.parameters == 2 * VOCABULARY * 64 + 2 * (attention + mlp + norms) + 64
    assert facts.bytes == 4 * facts.parameters
    assert (facts.dtype, facts.context_length, facts.chat_template, facts.has_biases) == ("float32", 512, True, False)
    assert facts.files == sorted(path.name for path in sharded.iterdir())


def test_biases_are_seen(tmp_path):
    assert inspect_model(make_tiny_model(tmp_path / "m", config=tiny_config(attention_bias=True))).has_biases


def test_the_command_prints_json_and_needs_no_torch(model, tmp_path):
    script = (
        "import sys; from jobs.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)\n"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, "inspect", str(model), "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == inspect_model(model).to_json()
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "inspect", str(tmp_path / "none"), "--json"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, json.loads(done.stderr)["error"]["code"]) == (78, "model_missing")


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin", "training_args.bin", "scheduler.pt", "rng_state.pth", "a.pkl", "modeling_evil.py", "x.gguf", "a.npy", "b.tar",
        ".hidden", "con.txt",
    ],
)  # fmt: skip
def test_a_file_that_is_not_on_the_list(model, name):
    (model / name).write_bytes(b"\x80\x04.")
    assert repr(name) in refusal(model)


def test_links_and_folders(model, tmp_path):
    victim = make_tiny_model(tmp_path / "victim")
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").symlink_to(victim / "model.safetensors")
    assert "'model.safetensors' is a link" in refusal(model)
    (model / "model.safetensors").unlink()
    os.mkfifo(model / "model.safetensors")
    assert "is a special file" in refusal(model)
    (model / "model.safetensors").unlink()
    (model / "model.safetensors").mkdir()
    assert "is a folder" in refusal(model)


@pytest.mark.parametrize(
    "target", ["../victim/model.safetensors", "/etc/passwd", "a/../../b.safetensors", "other.safetensors", "..", "", 7]
)
def test_a_weight_map_that_leads_elsewhere(sharded, tmp_path, target):
    make_tiny_model(tmp_path / "victim")
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={**weight_map, "lm_head.weight": target})
    assert "which is not a safetensors file of this folder" in refusal(sharded)


def test_an_index_that_does_not_tell_the_truth(sharded):
    index = sharded / "model.safetensors.index.json"
    weight_map = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={**weight_map, "lm_head.weight": weight_map["model.embed_tokens.weight"]})
    assert "does not say that 'lm_head.weight' is in" in refusal(sharded)
    edit(index, weight_map={**weight_map, "extra": weight_map["lm_head.weight"]})
    assert "names 1 tensors that are in no file, 'extra'" in refusal(sharded)


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}),
        ("config.json", {"text_config": {"vision": [{"trust_remote_code": True}]}}),
        ("config.json", {"_attn_implementation_internal": "attacker/kernel"}),
        ("config.json", {"attn_implementation": "attacker/kernel"}),
        ("config.json", {"text_config": {"_attn_implementation": "attacker/kernel"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.T", None]}}),
        ("generation_config.json", {"trust_remote_code": True}),
    ],
)
def test_keys_that_make_a_loader_run_code(model, file, changes):
    edit(model / file, **changes)
    assert f"{file} sets '" in refusal(model)


def test_a_word_of_the_vocabulary_is_no_setting(model):
    body = json.loads((model / "tokenizer.json").read_text())
    body["model"]["vocab"]["auto_map"] = 999
    (model / "tokenizer.json").write_text(json.dumps(body))
    edit(model / "config.json", trust_remote_code=False)
    assert inspect_model(model).layers == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"num_hidden_layers": 200_000}, {"vocab_size": 2**31}, {"hidden_size": -1}, {"hidden_size": "16"}, {"num_attention_heads": 0},
        {"num_hidden_layers": True}, {"intermediate_size": 1.5}, {"text_config": {"num_hidden_layers": 10**9}},
    ],
)  # fmt: skip
def test_numbers_that_exhaust_a_loader(model, changes):
    edit(model / "config.json", **changes)
    assert "it must be a whole number from 1 to" in refusal(model)


def test_other_kinds_of_model(model):
    edit(model / "config.json", architectures=["LlamaForSequenceClassification"])
    assert "neither a model that writes text" in refusal(model)
    edit(model / "config.json", architectures=["LlamaForCausalLM"], quantization_config={"quant_method": "gptq"})
    assert "quantised already" in refusal(model)


def test_a_config_that_names_no_architecture(model):
    edit(model / "config.json", architectures=None)
    assert "does not name its architecture" in refusal(model)


def test_json_that_is_not_json_or_too_deep(model):
    (model / "config.json").write_text('{"a":' + "[" * 100_000)
    assert "config.json is not valid JSON" in refusal(model)
    (model / "config.json").write_text("[" * 40 + "]" * 40)
    assert "nested more than 32 deep" in refusal(model)
    (model / "config.json").unlink()
    assert "has no config.json" in refusal(model)


def test_missing_parts(model):
    (model / "tokenizer.json").rename(model.parent / "tokenizer.json")
    assert "no tokenizer.json" in refusal(model)
    (model.parent / "tokenizer.json").rename(model / "tokenizer.json")
    (model / "model.safetensors").unlink()
    assert "no weights in safetensors" in refusal(model)


def entry(first, last, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [first, last]}


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "overlap or leave holes"),
        ({"a": entry(0, 8), "b": entry(12, 20)}, 20, "overlap or leave holes"),
        ({"a": entry(0, 8)}, 12, "cut off or has something added"),
        ({"a": entry(0, 8)}, 4, "cut off or has something added"),
        ({"a": entry(0, 12)}, 12, "has 12 bytes where its shape needs 8"),
        ({"a": entry(0, 8, (2**62, 4))}, 8, "not described as the format asks"),
        ({"a": entry(0, 8, (-2,))}, 8, "not described as the format asks"),
        ({"a": entry(0, 8, dtype="F33")}, 8, "not described as the format asks"),
        ({"a": {"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}}, 8, "not described as the format asks"),
        ({"a": 5}, 0, "not described as the format asks"),
        ({"__metadata__": {"x": "y" * 1_000_001}}, 0, "bytes of notes"),
        ({f"t{index}": entry(0, 0, (0,)) for index in range(50_001)}, 0, "more than 50,000 tensors"),
        ({}, 0, "hold no tensor"),
        ([], 0, "is not an object"),
        (b"{not json", 0, "is not valid JSON"),
    ],
)
def test_safetensors_headers(model, header, data, reason):
    write_weights(model / "model.safetensors", header, b"\0" * data)
    assert reason in refusal(model)


@pytest.mark.parametrize("start", [b"", b"abc", struct.pack("<Q", 2**63), struct.pack("<Q", 10**6) + b"{}", struct.pack("<Q", 0)])
def test_a_header_longer_than_the_file(model, start):
    (model / "model.safetensors").write_bytes(start)
    assert "is not a complete safetensors file" in refusal(model)


def test_a_header_larger_than_any_real_one(model):
    with (model / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 26_000_000))
        file.truncate(27_000_000)
    assert "is not a complete safetensors file" in refusal(model)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("model.safetensors", True), ("model-00001-of-00002.safetensors", True), ("config.json", True), ("tokenizer.model", True),
        ("LICENSE", True), ("license.txt", True), ("consolidated.safetensors", False), ("onnx/model.onnx", False),
        ("pytorch_model.bin", False),
        ("../config.json", False), ("modeling_x.py", False), ("config.json\n", False), ("original/config.json", False),
    ],
)  # fmt: skip
def test_what_is_fetched_of_a_repository(name, wanted):
    assert fetched(name) is wanted
