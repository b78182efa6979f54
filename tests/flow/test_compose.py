"""Adapters of two runs combined through the real engine: trained, composed, measured and downloaded, by a real worker."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from asgiref.sync import async_to_sync
from django.test import Client
from django.urls import reverse
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.flow.site import Site
from tests.flow.test_run import ROWS, until
from tests.tiny import make_tiny_model
from tests.webapp.runs.rows import Bench, make_bench
from webapp.runs.models import Record, Run
from webapp.runs.services.compose import compose_run
from webapp.runs.states import State

SHORT: dict[str, Any] = {
    "settings": {"rank": 4},
    "training": {"epochs": 1.0, "micro_batch": 8, "gradient_accumulation": 1, "precision": "float32", "learning_rate": 1e-2},
    "evaluation": {"generate": False, "samples": 0, "retention": False},
    "export": {"merge": "none"},
    "validation_share": 0.25,
}
WEIGHTS = (0.75, 0.25)


@pytest.fixture
def bench(site: Site) -> Bench:
    bench = make_bench(rows=ROWS[:32])
    make_tiny_model(bench.base_model.folder)
    site.start_dispatcher()
    site.start_worker("train0")
    return bench


def unpacked(run: Run, folder: Path) -> Path:
    with zipfile.ZipFile(run.artifacts.get(kind="adapter").file) as packed:
        packed.extractall(folder)
    return folder


def evaluated(run: Run) -> dict[str, float]:
    return {data["model"]: data["loss"] for data in Record.objects.filter(run=run, kind="eval").values_list("data", flat=True)}


def test_two_runs_are_combined_measured_and_downloaded(site: Site, bench: Bench, tmp_path: Path, client: Client) -> None:
    runs = [bench.launch(name=name, seed=5, **{**SHORT, "method": method}) for name, method in (("plain", "lora"), ("roots", "rslora"))]
    for run in runs:
        until(run, State.SUCCEEDED)
    made = compose_run(
        team=bench.team, user=bench.user, name="Both", parts=list(zip(runs, WEIGHTS, strict=True)), combination="cat", seed=1,
        evaluation=SHORT["evaluation"],
    )  # fmt: skip
    until(made, State.SUCCEEDED)
    assert list(made.history.values_list("to_state", flat=True)) == ["queued", "starting", "running", "finalizing", "succeeded"]

    losses, alone = evaluated(made), [evaluated(run) for run in runs]
    assert list(losses) == ["base", "adapter 1", "adapter 2", "tuned"]
    # The same held-out rows: base and parts measure what their own runs measured.
    assert losses["base"] == pytest.approx(alone[0]["base"], rel=1e-5)
    for number, of_run in enumerate(alone, 1):
        assert losses[f"adapter {number}"] == pytest.approx(of_run["tuned"], rel=1e-4)
    assert losses["tuned"] < losses["base"]
    assert made.summary["evals"]["test"]["tuned"]["loss"] == losses["tuned"]

    client.force_login(bench.user)
    (artifact,) = made.artifacts.all()
    answer = client.get(reverse("artifacts:download", args=[artifact.id]))
    (tmp_path / "download.zip").write_bytes(async_to_sync(whole)(answer))
    with zipfile.ZipFile(tmp_path / "download.zip") as packed:
        packed.extractall(tmp_path / "download")
    base = load_base(bench)
    expected = dict(base)
    for run, weight in zip(runs, WEIGHTS, strict=True):
        tuned = merged(bench, unpacked(run, tmp_path / run.name))
        expected = {name: value + weight * (tuned[name] - base[name]) for name, value in expected.items()}
    found = merged(bench, tmp_path / "download")
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) < 2e-6
    assert json.loads((tmp_path / "download/adapter_config.json").read_text())["r"] == 8
    assert load_file(tmp_path / "download/adapter_model.safetensors").keys()


async def whole(answer: Any) -> bytes:
    """The body of an answer that is streamed."""
    return b"".join([piece async for piece in answer])


def load_base(bench: Bench) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(bench.base_model.folder).state_dict())


def merged(bench: Bench, adapter: Path) -> dict[str, torch.Tensor]:
    """The weights of the base with an adapter merged in, by plain peft."""
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(bench.base_model.folder), adapter)
    return dict(model.merge_and_unload().state_dict())
