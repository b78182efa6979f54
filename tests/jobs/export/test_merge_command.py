"""`python -m jobs merge`, as a program of its own."""

import json
import re
import shutil
import subprocess
import sys
from typing import get_args

import pytest
import torch
from peft import LoraConfig
from transformers import AutoTokenizer

from jobs.commands.merge import STORED_DTYPES
from jobs.export.dequantised import dequantised_weights
from jobs.export.merge import merge
from jobs.export.updates.product import same_order
from jobs.models.loading import load_model
from jobs.spec import StoredDtype
from tests.jobs.export.adapters import assert_bitwise, load, make_adapter, merged_by_peft, stored
from tests.tiny import make_tiny_model, tiny_config, tiny_tokenizer


@pytest.fixture
def folders(tmp_path):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    (base / "LICENSE").write_text("as it likes")
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(r=4, target_modules="all-linear"))
    return base, adapter


def command(base, adapter, out, *more):
    return ["-m", "jobs", "merge", "--base", str(base), "--adapter", str(adapter), "--out", str(out), *more]


def run(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)


def test_makes_a_whole_model_and_tells_how(folders, tmp_path):
    base, adapter = folders
    done = run(*command(base, adapter, tmp_path / "new" / "merged", "--json"))
    assert done.returncode == 0, done.stderr
    *phases, last = (json.loads(line) for line in done.stdout.splitlines())
    assert phases[-1]["kind"] == "phase"
    assert phases[-1]["data"] == {"name": "merging", "done": 21, "total": 21, "unit": "tensors"}
    out = tmp_path / "new" / "merged"
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    assert last["merged"].pop("seconds") < 60
    assert last == {"merged": {"path": str(out), "how": "streamed", "bytes": size}}
    assert_bitwise(load(out).state_dict(), merged_by_peft(base, adapter))
    assert {path.name for path in out.iterdir()} == {path.name for path in base.iterdir()}
    assert AutoTokenizer.from_pretrained(out, local_files_only=True).chat_template == tiny_tokenizer().chat_template
    assert [path.name for path in out.parent.iterdir()] == ["merged"]


def test_the_adapters_tokenizer_wins_whole(folders, tmp_path):
    base, adapter = folders
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ 'another' }}"
    tokenizer.save_pretrained(adapter)
    (base / "special_tokens_map.json").write_text("{}")
    (tmp_path / "out").mkdir()  # an empty folder will do
    assert run(*command(base, adapter, tmp_path / "out")).returncode == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "out", local_files_only=True).chat_template == "{{ 'another' }}"
    assert not (tmp_path / "out" / "special_tokens_map.json").exists()
    assert (tmp_path / "out" / "LICENSE").read_text() == "as it likes"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda base, adapter, out: (out.mkdir(), (out / "mine.txt").write_text("kept")), "folder_taken"),
        (lambda base, adapter, out: (base / "model.safetensors").unlink(), "model_missing"),
        (lambda base, adapter, out: (adapter / "adapter_model.safetensors").unlink(), "file_missing"),
        (lambda base, adapter, out: (adapter / "adapter_model.safetensors").write_bytes(b"short"), "merge_impossible"),
        (lambda base, adapter, out: shutil.copyfile(base / "model.safetensors", adapter / "adapter_model.safetensors"), "merge_impossible"),
    ],
)
def test_a_refusal_leaves_everything_as_it_was(folders, tmp_path, spoil, code):
    base, adapter = folders
    out = tmp_path / "out"
    spoil(base, adapter, out)
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    done = run(*command(base, adapter, out, "--json"))
    assert done.returncode == 78
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == code
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


def test_dequantised_is_what_the_loaded_4_bit_base_computes_with(folders, tmp_path):
    base, adapter = folders
    done = run(*command(base, adapter, tmp_path / "out", "--dequantised", "--dtype", "float32"))
    assert done.returncode == 0, done.stderr
    weights = dequantised_weights(load_model(base, precision="bfloat16", trains_base=False, bits=4))
    merge(base, adapter, tmp_path / "expected", shard_bytes=10**9, dtype="float32", dequantised=weights)
    assert_bitwise(stored(tmp_path / "out"), stored(tmp_path / "expected"))
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(stored(tmp_path / "out")[name], merged_by_peft(base, adapter, torch.float32)[name])


def test_the_dtypes_are_those_of_the_spec():
    assert get_args(StoredDtype) == STORED_DTYPES


def peak(code):
    """The peak resident memory of a process that runs `code`, in bytes; and whether it loaded torch."""
    end = "import sys; print('torch' in sys.modules); print(open('/proc/self/status').read())"
    done = run("-c", f"{code}\n{end}")
    assert done.returncode == 0, done.stderr
    found = re.search(r"VmHWM:\s+(\d+) kB", done.stdout)
    assert found
    return int(found[1]) * 1024, "\nTrue\n" in f"\n{done.stdout}"


def test_memory_stays_far_below_one_shard_and_torch_is_loaded_only_where_numpy_adds_otherwise(tmp_path):
    config = tiny_config(hidden_size=1024, intermediate_size=4096, tie_word_embeddings=True)
    base = make_tiny_model(tmp_path / "base", config=config, dtype=torch.bfloat16, shard_bytes=40_000_000)
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(r=16, target_modules="all-linear"))
    assert sorted(path.stat().st_size // 10**6 for path in base.glob("*.safetensors")) == [25, 38]
    imports = ", ".join(["jobs.__main__", "jobs.export.merged_folder", "jobs.commands.merge", *(["torch"] if same_order() == 0 else [])])
    process, _ = peak(f"import {imports}")
    arguments = command(base, adapter, tmp_path / "out", "--shard-bytes", "40000000")[2:]
    merging, torch_loaded = peak(f"from jobs.__main__ import main; assert main({arguments!r}) == 0")
    assert torch_loaded == (same_order() == 0)
    assert_bitwise(stored(tmp_path / "out"), merged_by_peft(base, adapter))
    assert merging - process < 0.5 * 38_000_000
