"""`python -m jobs train` as the supervisor uses it: a process that writes events, and ends with a code that says how."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from jobs.errors import ExitCode
from jobs.events import Event, read_events
from jobs.training import checkpoint
from tests.tiny import make_tiny_model

WORDS = {"refund": "my money back please", "shipping": "where is the parcel"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny model and small chats, as a spec names them."""
    place = tmp_path_factory.mktemp("run")
    make_tiny_model(place / "model")
    for name, count in (("train", 24), ("test", 4)):
        chats = [_chat(*list(WORDS.items())[index % 2], index) for index in range(count)]
        (place / f"{name}.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in chats))
    return place


def _chat(label: str, words: str, number: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": f"{words} {number}"}, {"role": "assistant", "content": label}]}


def write_spec(folder: Path, name: str, **changes: Any) -> Path:
    """A spec of 12 steps; `changes` replace its sections."""
    spec = {
        "name": "tiny",
        "model": {"path": "model"},
        "data": {"train": "train.jsonl", "test": "test.jsonl", "validation_share": 0.1},
        "method": {"id": "lora", "settings": {"rank": 4}},
        "training": {"max_steps": 12, "epochs": 100, "micro_batch": 4, "precision": "float32"},
        "evaluation": {"max_new_tokens": 4, "samples": 1},
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps({**spec, **changes}))
    return path


def command(spec: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "jobs", "train", str(spec), "--out", str(out), *more]


def train(spec: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(spec, out, *more), capture_output=True, text=True, timeout=120, check=False)


def events(out: Path) -> list[Event]:
    found = list(read_events(out / "events.jsonl"))
    assert [event.seq for event in found] == list(range(1, len(found) + 1))
    return found


def of(kind: str, out: Path) -> list[dict[str, Any]]:
    return [event.data for event in events(out) if event.kind == kind]


def follow(out: Path, kind: str, step: int, process: subprocess.Popen[str]) -> None:
    """Waits until an event of a kind has reached a step."""
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if (out / "events.jsonl").exists() and any(data.get("step", 0) >= step for data in of(kind, out)):
            return
        time.sleep(0.02)
    pytest.fail(f"no {kind} at step {step}; exit code {process.poll()}")


@pytest.fixture(scope="module")
def straight(folder, tmp_path_factory) -> Path:
    """The output of one run from start to end."""
    out = tmp_path_factory.mktemp("straight")
    result = train(write_spec(folder, "straight"), out, "--json")
    assert result.returncode == ExitCode.DONE, result.stderr
    assert result.stdout == (out / "events.jsonl").read_text()
    return out


def test_a_run_from_start_to_end(straight, folder):
    kinds = [event.kind for event in events(straight)]
    assert (kinds[-1], of("finished", straight)) == ("finished", [{"outcome": "succeeded", "step": 12}])
    (plan,) = of("plan", straight)
    assert (plan["train_rows"], plan["validation_rows"], plan["test_rows"], plan["total_steps"]) == (22, 2, 4, 12)
    assert (plan["batching"], plan["precision"], plan["effective_batch"], plan["start_step"]) == ("packed", "float32", 8, 0)
    assert plan["trainable_parameters"] < plan["total_parameters"] / 5
    assert [data["step"] for data in of("step", straight)] == list(range(1, 13))
    measured = {(data["model"], data["split"]) for data in of("eval", straight)}
    held_out = {("base", "test"), ("tuned", "test"), ("merged", "test"), ("base", "validation"), ("tuned", "validation")}
    assert measured == held_out | {("base", "probe"), ("tuned", "probe")}
    ends = {data["model"]: data["loss"] for data in of("eval", straight) if data["split"] == "test"}
    assert ends["tuned"] < ends["base"]
    assert [data["kind"] for data in of("artifact", straight)] == ["adapter", "merged"]
    assert all((straight / data["path"]).stat().st_size == data["bytes"] for data in of("artifact", straight))
    assert json.loads((straight / "spec.json").read_text())["model"]["path"] == str(folder / "model")


def test_what_was_forgotten_is_a_number_in_the_events_and_on_the_card(straight):
    base, tuned = (data for data in of("eval", straight) if data["split"] == "probe")
    assert (base["model"], base["step"], tuned["model"], tuned["step"]) == ("base", 0, "tuned", 12)
    assert (
        (base["rows"], base["tokens"]) == (tuned["rows"], tuned["tokens"]) == (60, sum(kind["tokens"] for kind in base["kinds"].values()))
    )
    assert base["loss"] != tuned["loss"]
    with zipfile.ZipFile(straight / of("artifact", straight)[0]["path"]) as archive:
        card = archive.read("README.md").decode()
    table = card[card.index("## General probe") :].split("\n\n")[1].splitlines()
    assert table[0] == "|  | base | tuned | Difference |"
    assert table[2].startswith(
        f"| Loss (nats per token) | {base['loss']:.6g} | {tuned['loss']:.6g} | {tuned['loss'] - base['loss']:+.4g} |"
    )
    assert len(table) == 2 + 2 + 6


def test_sigterm_leaves_a_checkpoint_and_a_second_attempt_goes_on_from_it(straight, folder, tmp_path):
    """The two attempts together give the curve of the run that was never stopped: the same spec, data and seed in other processes."""
    spec = write_spec(folder, "paused")
    with subprocess.Popen(command(spec, tmp_path / "1"), stderr=subprocess.PIPE, text=True) as process:
        follow(tmp_path / "1", "step", 3, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == ExitCode.PREEMPTED, process.stderr and process.stderr.read()
    (finished,) = of("finished", tmp_path / "1")
    assert (finished["outcome"], finished["code"]) == ("preempted", "preempted")
    stopped = finished["step"]
    assert checkpoint.newest([tmp_path / "1"]).name == f"step-{stopped:08d}"
    assert train(spec, tmp_path / "2", "--resume", str(tmp_path / "1")).returncode == ExitCode.DONE
    (plan,) = of("plan", tmp_path / "2")
    assert (plan["start_step"], plan["resumed_from"]) == (stopped, f"step-{stopped:08d}")
    curve = [data["loss"] for attempt in ("1", "2") for data in of("step", tmp_path / attempt)]
    assert curve == [data["loss"] for data in of("step", straight)]
    assert "base" not in {data["model"] for data in of("eval", tmp_path / "2")}, "the base was measured by the first attempt"
    assert of("artifact", tmp_path / "2")[0]["kind"] == "adapter"


def test_a_trained_run_that_died_before_its_artifacts_goes_straight_to_them(straight, folder, tmp_path):
    assert train(write_spec(folder, "after"), tmp_path, "--resume", str(straight)).returncode == ExitCode.DONE
    assert of("step", tmp_path) == []
    assert [data["kind"] for data in of("artifact", tmp_path)] == ["adapter", "merged"]


def test_a_killed_run_goes_on_from_its_last_checkpoint(straight, folder, tmp_path):
    training = {"max_steps": 12, "epochs": 100, "micro_batch": 4, "precision": "float32", "checkpoint_every_steps": 2}
    spec = write_spec(folder, "killed", training=training)
    with subprocess.Popen(command(spec, tmp_path / "1"), stderr=subprocess.DEVNULL, text=True) as process:
        follow(tmp_path / "1", "checkpoint", 4, process)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert train(spec, tmp_path / "2", "--resume", str(tmp_path / "1")).returncode == ExitCode.DONE
    start = of("plan", tmp_path / "2")[0]["start_step"]
    assert start >= 4
    assert [data["loss"] for data in of("step", tmp_path / "2")] == [data["loss"] for data in of("step", straight)][start:]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"method": {"id": "magic"}}, "method_unknown"),
        ({"data": {"train": "absent.jsonl"}}, "file_missing"),
        ({"seed": -1}, "spec_bad_value"),
        ({"training": {"max_length": 8}}, "nothing_to_learn"),
    ],
)
def test_what_the_user_gave_and_cannot_be_used(changes, code, folder, tmp_path):
    result = train(write_spec(folder, "refused", **changes), tmp_path, "--json")
    assert result.returncode == ExitCode.BAD_INPUT
    assert json.loads(result.stderr.splitlines()[-1])["error"]["code"] == code
    (finished,) = of("finished", tmp_path)
    assert (finished["outcome"], finished["code"]) == ("failed", code)
    assert finished["remedy"]
    assert of("step", tmp_path) == []


def test_full_fine_tuning_leaves_a_model(folder, tmp_path):
    """The base in bfloat16: the download holds rounded weights, which are measured under a name of their own."""
    make_tiny_model(folder / "narrow", dtype=torch.bfloat16)
    training = {"max_steps": 2, "precision": "bfloat16"}
    spec = write_spec(folder, "full", model={"path": "narrow"}, method={"id": "full"}, training=training)
    assert train(spec, tmp_path).returncode == ExitCode.DONE
    (plan,) = of("plan", tmp_path)
    assert plan["trainable_parameters"] == plan["total_parameters"]
    (artifact,) = of("artifact", tmp_path)
    ends = {data["model"]: data["loss"] for data in of("eval", tmp_path) if data["split"] == "test"}
    assert list(ends) == ["base", "tuned", "stored"]
    assert (artifact["kind"], artifact["details"]["stored_dtype"], artifact["details"]["loss"]) == ("model", "bfloat16", ends["stored"])


def test_a_steered_run_says_which_weights_it_leaves(folder, tmp_path):
    """8-bit state, LoRA+, micro-batches by tokens; so high a rate that the validation loss soon rises."""
    training = {
        "max_steps": 40, "epochs": 100, "micro_batch": 4, "precision": "float32", "learning_rate": 0.1, "schedule": "constant",
        "optimiser": "paged_adamw_8bit", "micro_batch_tokens": 200, "evaluate_every_steps": 1, "early_stopping_evaluations": 3,
        "final_weights": "best",
    }  # fmt: skip
    method = {"id": "lora", "settings": {"rank": 4, "b_rate_ratio": 4}}
    assert train(write_spec(folder, "steered", training=training, method=method), tmp_path).returncode == ExitCode.DONE
    losses = {data["step"]: data["loss"] for data in of("eval", tmp_path) if (data["split"], data["model"]) == ("validation", "tuned")}
    best, last = min(losses, key=lambda step: losses[step]), max(losses)
    assert last == best + 3 < 40
    assert of("finished", tmp_path) == [{"outcome": "succeeded", "step": last}]
    told = "\n".join(data["message"] for data in of("log", tmp_path))
    assert f"Stopped after step {last}: the validation loss has not fallen for 3 evaluations." in told
    assert f"The weights of step {best} are kept: " in told
    assert "optimiser_not_paged" in {data["code"] for data in of("warning", tmp_path)}
    adapter = tmp_path / of("artifact", tmp_path)[0]["path"]
    with zipfile.ZipFile(adapter) as archive:
        card = next(name for name in archive.namelist() if name.endswith("README.md"))
        assert f"| `weights_of_step` | {best} |" in archive.read(card).decode()
        weights = load(archive.read(next(name for name in archive.namelist() if name.endswith("adapter_model.safetensors"))))
    saved = checkpoint.read_weights(tmp_path / "checkpoints" / f"step-{best:08d}")
    assert weights.keys() == {name.replace(".default.", ".") for name in saved}
    assert all(torch.equal(value, weights[name.replace(".default.", ".")]) for name, value in saved.items())


def test_it_dies_with_its_parent(folder, tmp_path):
    """The parent is killed outright; the kernel takes the run with it."""
    spec = write_spec(folder, "orphan", training={"max_steps": 5000, "epochs": 1000, "precision": "float32"})
    program = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([*sys.argv[1:], '--parent-pid', str(os.getpid())])\n"
        "print(child.pid, flush=True)\nchild.wait()\n"
    )
    arguments = [sys.executable, "-c", program, *command(spec, tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        follow(tmp_path, "step", 1, parent)
        parent.kill()
    assert any(_gone(child) for _ in _patience()), "the run outlived its parent"


def test_a_parent_that_has_gone_already_starts_nothing(folder, tmp_path):
    result = train(write_spec(folder, "late"), tmp_path / "out", "--parent-pid", "1")
    assert result.returncode == ExitCode.INTERNAL
    assert not (tmp_path / "out").exists()


def _patience() -> Iterator[None]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        yield
        time.sleep(0.02)


def _gone(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    state = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return state == "Z"
