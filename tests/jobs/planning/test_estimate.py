"""The command and the calibration: real processes."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from jobs.models.device import probe
from jobs.planning.batches import RowLengths
from jobs.planning.calibration import calibration_key, read_calibration
from jobs.planning.estimate import estimate
from jobs.planning.lengths import count_labels, row_lengths
from jobs.planning.shape import read_shape
from jobs.spec import DataSpec, MethodSpec, ModelSpec, RunSpec, TrainingSpec, load_spec
from tests.jobs.planning.test_shape import CPU
from tests.tiny import make_tiny_model


@pytest.fixture
def folder(tmp_path):
    make_tiny_model(tmp_path / "m")
    rows = [{"prompt": "x" * 396, "completion": "y" * 396} for _ in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = {"model": {"path": "m"}, "data": {"train": "rows.jsonl"}, "training": {"micro_batch": 2}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    return tmp_path


def test_rows_are_measured_by_their_characters(folder):
    found = row_lengths(load_spec(folder / "spec.json"))
    assert (found.lengths, found.rows, found.known) == ((199,) * 40, 38, True)
    assert found.label_share == pytest.approx(100 / 199)


def test_the_command_says_memory_and_time_without_torch_once_calibrated(folder):
    """The device is probed once and remembered; a calibration of another device or a broken one is none."""
    cache, command = folder / "cache", ["estimate", str(folder / "spec.json"), "--json", "--cache", str(folder / "cache")]
    first = subprocess.run([sys.executable, "-m", "jobs", *command], capture_output=True, text=True, check=True)
    body = json.loads(first.stdout)
    assert body["memory"]["peak"] > body["memory"]["phases"]["training"] > 0
    assert body["speed"]["low"] < body["speed"]["tokens_per_second"] < body["speed"]["high"]
    assert body["fits"]
    assert body["trained_parameters"] == 2 * 16 * (6 * 64 + 128 + 2 * 64 + 2 * 32 + 2 * 128 + 64)
    assert body["trained_share"] == body["trained_parameters"] / sum(body["parameters"].values())
    assert len(list(cache.iterdir())) == 1
    script = "import sys; from jobs.__main__ import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    again = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout) == body
    table = subprocess.run(
        [sys.executable, "-m", "jobs", *[word for word in command if word != "--json"]], capture_output=True, text=True, check=True
    )
    assert "It fits:" in table.stdout
    assert "tokens/s" in table.stdout
    device, shape = probe(), read_shape(folder / "m")
    found = read_calibration(cache, device, shape)
    assert found is not None
    assert found.key == calibration_key(device, shape)
    assert 0 < found.probe_seconds < 60
    assert min(rate.forward for rate in found.rates.values()) > 0
    assert found.runtime_bytes > 100_000_000
    assert read_calibration(cache, {**device, "threads": device["threads"] + 1}, shape) is None
    (kept,) = cache.iterdir()
    kept.write_text(kept.read_text()[:100])
    assert read_calibration(cache, device, shape) is None


def test_the_catalogue_says_what_each_method_trains_without_torch(folder):
    script = "import sys; from jobs.__main__ import main; code = main(sys.argv[1:]); assert 'torch' not in sys.modules; sys.exit(code)"
    command = ["methods", "--json", "--model", str(folder / "m"), "--task", "sequence_classification", "--labels", "3"]
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=True)
    told = {method["id"]: method["trained_parameters"] for method in json.loads(done.stdout)}
    assert told["ln_tuning"] == 5 * 64 + 3 * 64, "the norms and the head"
    assert told["eva"] is told["bitfit"] is None


def test_labels_are_counted_where_the_task_has_some(folder):
    (folder / "labels.jsonl").write_text("".join(json.dumps({"text": "x", "label": label}) + "\n" for label in "abca"))
    spec = RunSpec(ModelSpec(str(folder / "m")), DataSpec(str(folder / "labels.jsonl")))
    assert (count_labels(spec), count_labels(replace(spec, task="sequence_classification"))) == (2, 3)
    assert row_lengths(replace(spec, task="sequence_classification")).rows == 4


@pytest.mark.parametrize(("method", "trained", "guess"), [("boft", True, True), ("eva", False, False), ("lora", True, False)])
def test_what_is_not_known_is_said(method, trained, guess, folder):
    spec = replace(load_spec(folder / "spec.json"), method=MethodSpec(method))
    found = estimate(spec, CPU, read_shape(folder / "m"), RowLengths.of([64], rows=8))
    assert ((found.trained_parameters is not None), bool(found.trained_unknown), bool(found.guess)) == (trained, not trained, guess)


def test_a_spec_of_an_unknown_file_is_refused(folder):
    from jobs.errors import UserError

    spec = RunSpec(ModelSpec(str(folder / "m")), DataSpec(str(folder / "none.jsonl")), training=TrainingSpec())
    with pytest.raises(UserError) as caught:
        row_lengths(spec)
    assert caught.value.code == "file_missing"
