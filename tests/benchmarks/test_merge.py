"""The measurement of merging, on a tiny model: both ways really run, and their files are compared."""

import json

import torch
from peft import LoraConfig

from benchmarks import merge
from tests.jobs.export.adapters import make_adapter, stored
from tests.tiny import make_tiny_model


def test_both_ways_run_and_their_files_are_compared(tmp_path, monkeypatch, capsys):
    base = make_tiny_model(tmp_path / "base", dtype=torch.bfloat16)
    adapter = make_adapter(base, tmp_path / "adapter", LoraConfig(r=4, target_modules="all-linear"))
    monkeypatch.setattr(merge, "WORK", tmp_path / "work")
    monkeypatch.setattr(merge, "folders", lambda case: (base, adapter))
    result = merge.measure("tiny", 1)
    assert result["bitwise_equal"]
    (ours,), (theirs,) = result["runs"]["graft"], result["runs"]["peft"]
    assert result["speed_ratio"] == round(theirs["seconds"] / ours["seconds"], 2)
    assert result["rss_ratio"] == round(ours["rss_bytes"] / theirs["rss_bytes"], 3)
    assert 0 < ours["anonymous_bytes"] < ours["rss_bytes"] < theirs["rss_bytes"]  # the other one loads torch
    assert "bitwise equal: True" in capsys.readouterr().out
    assert not any((tmp_path / "work").glob("*"))


def test_a_byte_that_differs_is_seen(tmp_path):
    one, other = (make_tiny_model(tmp_path / name, shard_bytes=size) for name, size in (("one", 10**9), ("other", 40_000)))
    assert merge.same_bytes(one, other)
    file = next(path for path in sorted(other.glob("*.safetensors")))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert not merge.same_bytes(one, other)
    assert stored(one).keys() == stored(other).keys()
    assert json.loads((other / "config.json").read_text()) == json.loads((one / "config.json").read_text())
