"""How a worker is: real figures of this machine, and those of a GPU as its driver gives them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import jobs
from webapp.runs import vitals as module
from webapp.runs.vitals import versions, vitals


def test_a_cpu_says_memory_and_load_of_the_machine() -> None:
    found = vitals({"kind": "cpu", "memory_bytes": psutil.virtual_memory().total})
    assert 0 < found["memory_used_bytes"] <= found["memory_bytes"] == psutil.virtual_memory().total
    assert 0 <= found["busy"] <= 1
    assert found["celsius"] is None or 0 < found["celsius"] < 150


def test_memory_is_of_what_the_worker_may_use() -> None:
    found = vitals({"kind": "cpu", "memory_bytes": 1000})
    assert (found["memory_used_bytes"], found["memory_bytes"]) == (1000, 1000)


def test_a_device_that_nobody_knows_is_the_machine() -> None:
    assert vitals({})["memory_bytes"] == psutil.virtual_memory().total


def test_versions_of_what_computes() -> None:
    found = versions()
    assert found["graft"] == jobs.__version__
    assert set(found) >= {"python", "torch", "transformers", "peft"}
    assert all(found.values())


@pytest.mark.parametrize(("visible", "asked"), [("", ("index", 0)), ("1", ("index", 1)), ("GPU-abc,GPU-def", ("uuid", "GPU-abc"))])
def test_a_gpu_says_its_own(monkeypatch: pytest.MonkeyPatch, visible: str, asked: tuple[str, Any]) -> None:
    questions: list[Any] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    answers = {
        "nvmlInit": lambda: questions.append("init"),
        "nvmlShutdown": lambda: questions.append("shutdown"),
        "nvmlDeviceGetHandleByIndex": lambda index: ("index", index),
        "nvmlDeviceGetHandleByUUID": lambda uuid: ("uuid", uuid),
        "nvmlDeviceGetMemoryInfo": lambda handle: questions.append(handle) or SimpleNamespace(used=30, total=80),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=97),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(module.pynvml, name, answer)

    def not_supported(handle: Any, sensor: int) -> int:
        raise module.pynvml.NVMLError(module.pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(module.pynvml, "nvmlDeviceGetTemperature", not_supported)
    assert vitals({"kind": "cuda"}) == {"memory_used_bytes": 30, "memory_bytes": 80, "busy": 0.97, "celsius": None}
    assert questions == ["init", asked, "shutdown"]
