"""An analysis from the command line: what it measures of the bits, and what it leaves in its file."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.__main__ import main
from jobs.analysis.bits import Width, rounded, weight_of
from jobs.analysis.defaults import EVENT, FILE
from jobs.analysis.job import execute
from jobs.analysis.report import advise_bits
from jobs.analysis.subject import Subject
from jobs.data.token_cache import TokenCache
from jobs.errors import ExitCode, GraftError
from jobs.events import PHASES, read_events
from jobs.export.dequantised import dequantised_weights
from jobs.methods.targets import linear_layers
from tests.jobs.analysis.test_spectrum import spec_of


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_rounded_as_a_base_of_these_bits_computes_with_them(tmp_path, bits):
    subject = Subject.open(spec_of(tmp_path, 16), TokenCache(None))
    held = dequantised_weights(subject.load(bits).model)
    for name, layer in linear_layers(subject.load(16).model):
        torch.testing.assert_close(rounded(weight_of(layer), bits), held(f"{name}.weight"), rtol=1e-6, atol=0.0)


def test_four_bits_that_cost_loss_are_given_more_rank():
    def width(bits: int, loss: float | None) -> Width:
        return Width(bits, loss, 0.1, (), {16: 0.2, 64: 0.5})

    costly = advise_bits([width(16, 2.0), width(8, 2.001), width(4, 2.2)], 16)
    assert [(one["bits"], one["rank"]) for one in costly] == [(16, 16), (8, 16), (4, 64)]
    assert [one["loss_rise"] for one in costly] == pytest.approx([0, 0.0005, 0.1])
    assert costly[2]["error_repaired_at_most"] == 0.5
    assert advise_bits([width(16, 2.0), width(4, 2.01)], 16)[1]["rank"] == 16
    assert advise_bits([width(4, None)], 64)[0] == {"bits": 4, "loss_rise": None, "rank": 128, "error_repaired_at_most": None}


def analyse(folder: Path, *arguments: str) -> int:
    (folder / "spec.json").write_text(json.dumps(spec_of(folder, 4).to_json()))
    looks = ["--batches", "2", "--directions", "16", "--token-cache", str(folder / "cache")]
    return main(["analyse", str(folder / "spec.json"), "--out", str(folder / "out"), *looks, *arguments])


def test_the_command_leaves_a_whole_analysis_its_events_and_a_download(tmp_path, capsys):
    code = analyse(tmp_path)
    found = json.loads((tmp_path / "out" / FILE).read_text())
    shown = capsys.readouterr().out
    assert code == 0
    assert (found["version"], found["bits_of_base"], found["precision"]) == (1, 4, "float32")
    spectrum = found["spectrum"]
    assert (spectrum["batches"], spectrum["rows"], spectrum["directions"]) == (2, 8, 16)
    assert spectrum["suggested_rank"] in (4, 8, 16)
    assert f"Suggested rank: {spectrum['suggested_rank']}" in shown
    names = [layer["name"] for layer in spectrum["layers"]]
    assert list(spectrum["rank_pattern"]) == names
    assert len(names) == 14
    assert 0.8 * spectrum["parameters"]["uniform"] <= spectrum["parameters"]["pattern"] <= spectrum["parameters"]["uniform"]
    assert all(len(layer["singular_values"]) == 16 for layer in spectrum["layers"])
    widths = {width["bits"]: width for width in found["bits"]["widths"]}
    assert list(widths) == [16, 8, 4]
    assert widths[16]["relative_error"] == 0 < widths[8]["relative_error"] < 0.02 < widths[4]["relative_error"] < 0.15
    assert abs(widths[8]["loss"] / widths[16]["loss"] - 1) < 0.02
    repaired = list(widths[4]["repaired"].values())
    assert repaired == sorted(repaired)
    assert 0 < repaired[0] < repaired[-1] <= 1
    check_events(tmp_path / "out", found)


def check_events(out: Path, found: dict[str, Any]) -> None:
    events = list(read_events(out / "events.jsonl"))
    phases = [event.data["name"] for event in events if event.kind == "phase"]
    assert list(dict.fromkeys(phases)) == ["tokenizing", "loading", "analysing", "comparing", "saving"]
    assert set(phases) <= set(PHASES)
    told = next(event.data for event in events if event.kind == "method")
    assert (told["name"], told["step"]) == (EVENT, 0)
    assert told["spectrum"]["rank_pattern"] == found["spectrum"]["rank_pattern"]
    last = told["spectrum"]["layers"][-1]
    assert "singular_values" not in last
    errors = {str(width["bits"]): width["layers"][-1]["relative_error"] for width in found["bits"]["widths"][1:]}
    assert last["relative_error"] == pytest.approx(errors, rel=1e-3)
    (artifact,) = (event.data for event in events if event.kind == "artifact")
    packed = (out / artifact["path"]).read_bytes()
    assert (artifact["kind"], artifact["name"], artifact["sha256"]) == ("analysis", "run-analysis.zip", hashlib.sha256(packed).hexdigest())
    (member,) = artifact["files"]
    assert packed[member["offset"] :][: member["bytes"]] == (out / FILE).read_bytes()
    assert events[-1].data["outcome"] == "succeeded"
    assert not (out / ".export").exists()


def test_an_analysis_that_is_to_stop_leaves_nothing_behind(tmp_path):
    with pytest.raises(GraftError) as stopped:
        execute(spec_of(tmp_path, 16), tmp_path, emit=lambda *_a, **_k: None, stop=lambda: True, cache=TokenCache(None))
    assert stopped.value.code == "preempted"
    assert not (tmp_path / FILE).exists()


def test_what_a_run_would_refuse_ends_an_analysis_with_its_code(tmp_path, capsys):
    rows = tmp_path / "rows.jsonl"
    spec_of(tmp_path, 4)
    rows.unlink()
    (tmp_path / "spec.json").write_text(json.dumps({"model": {"path": str(tmp_path / "model")}, "data": {"train": str(rows)}}))
    code = main(["analyse", str(tmp_path / "spec.json"), "--out", str(tmp_path / "out"), "--json"])
    assert code == ExitCode.BAD_INPUT
    assert json.loads(capsys.readouterr().err.splitlines()[-1])["error"]["code"] == "file_missing"
    last = list(read_events(tmp_path / "out" / "events.jsonl"))[-1]
    assert (last.kind, last.data["outcome"], last.data["code"]) == ("finished", "failed", "file_missing")


def test_unknown_bits_are_refused_before_anything_is_loaded(tmp_path, capsys):
    assert main(["analyse", "none.json", "--out", str(tmp_path / "out"), "--bits", "16,2", "--json"]) == ExitCode.BAD_INPUT
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "spec_bad_value"
    assert not (tmp_path / "out").exists()
