"""Which checkpoints belong to a run: by what it is made of, wherever that lies."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import GraftError, UserError
from jobs.spec import DataSpec, MethodSpec, ModelSpec, RunSpec
from jobs.training.checkpoint import require_same_run
from jobs.training.fingerprint import BATCHES, fingerprint
from tests.jobs.tasks.rows import make_spec, run
from tests.jobs.training.reference import make_rows
from tests.tiny_architectures import make_tiny_architecture

SPEC = RunSpec(ModelSpec("model"), DataSpec("rows.jsonl"))
ROWS = make_rows(4)


def adapter(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "README.md").write_text(str(folder))
    return folder


def as_kept(body: dict) -> dict:
    """The state of a checkpoint, as it is read back."""
    state: dict = json.loads(json.dumps({"step": 3, "fingerprint": body}))
    return state


def test_an_adapter_is_known_by_what_is_in_it_and_not_by_its_place(tmp_path):
    one, moved, other = adapter(tmp_path / "one"), adapter(tmp_path / "moved"), adapter(tmp_path / "other", b"trained further")
    here, there = (replace(SPEC, method=MethodSpec("adapter_fusion", {}, [str(folder)])) for folder in (one, moved))
    state = as_kept(fingerprint(here, ROWS, [one]))
    require_same_run(tmp_path, state, fingerprint(there, ROWS, [moved]))
    with pytest.raises(UserError, match="not the same adapters"):
        require_same_run(tmp_path, state, fingerprint(there, ROWS, [other]))
    with pytest.raises(UserError, match="not the same adapters"):
        require_same_run(tmp_path, state, fingerprint(there, ROWS, [moved, other]))


@pytest.mark.parametrize("old", [{"id": "lora", "settings": {}}, {"id": "lora", "settings": {}, "adapters": []}])
def test_a_checkpoint_from_before_there_were_tasks_is_one_of_writing(tmp_path, old):
    today = fingerprint(SPEC, ROWS, [])
    batches = {name: getattr(SPEC.training, name) for name in BATCHES}
    state = as_kept({"method": old, "training": {**today["training"], **batches}, "seed": 0, "rows": today["rows"]})
    require_same_run(tmp_path, state, today)
    with pytest.raises(UserError, match="not the same task"):
        require_same_run(tmp_path, state, fingerprint(replace(SPEC, task="regression"), ROWS, []))
    with pytest.raises(UserError, match="not the same method"):
        require_same_run(tmp_path, state, fingerprint(replace(SPEC, method=MethodSpec("dora")), ROWS, []))


def test_adapters_that_an_older_checkpoint_knows_by_path_alone_are_not_taken_on_trust(tmp_path):
    folder = adapter(tmp_path / "one")
    spec = replace(SPEC, method=MethodSpec("adapter_fusion", {}, [str(folder)]))
    today = fingerprint(spec, ROWS, [folder])
    state = as_kept({**today, "method": {"id": "adapter_fusion", "settings": {}, "adapters": [str(folder)]}, "adapters": []})
    with pytest.raises(UserError, match="not the same adapters"):
        require_same_run(tmp_path, state, today)


def test_a_fusion_goes_on_with_the_same_bits_when_its_adapters_have_moved(tmp_path):
    make_tiny_architecture(tmp_path / "bert", "bert")
    spec = make_spec(tmp_path, tmp_path / "bert", "sequence_classification", max_steps=4)
    spec = replace(spec, export=replace(spec.export, merge="none"))
    zips = []
    for seed in (1, 2):
        out = tmp_path / f"part-{seed}"
        part = run(replace(spec, seed=seed, method=MethodSpec("bottleneck_adapter", {"size": 4})), out)
        zips.append(out / next(data["path"] for data in part.of("artifact") if data["kind"] == "adapter"))
    first = replace(spec, method=MethodSpec("adapter_fusion", {}, [str(path) for path in zips]))
    straight = run(first, tmp_path / "straight")
    with pytest.raises(GraftError) as stopped:
        run(first, tmp_path / "first", until=2)
    assert stopped.value.code == "preempted"
    moved = [str(shutil.move(path, tmp_path / f"moved-{number}.zip")) for number, path in enumerate(zips)]
    again = run(replace(first, method=replace(first.method, adapters=moved)), tmp_path / "second", [tmp_path / "first"])
    assert again.of("plan")[0]["start_step"] == 2
    assert [data["loss"] for data in again.of("step")] == [data["loss"] for data in straight.of("step")][2:]
