"""How a worker is at this moment, and what it runs with: asked of the system and of the GPU's driver, without torch.

The worker asks in its main process, which forks: the driver's library is let go of after each question.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from contextlib import suppress
from typing import Any

import psutil
import pynvml

import jobs

_PACKAGES = ("torch", "transformers", "peft", "bitsandbytes")


def vitals(device: dict[str, Any]) -> dict[str, Any]:
    """`memory_used_bytes` and `memory_bytes`, `busy` (a share from 0 to 1) and `celsius` of the worker's device: of its first GPU, else of
    this machine. What cannot be known is None.
    """
    if device.get("kind") == "cuda":
        with suppress(pynvml.NVMLError):
            return _of_gpu()
    return _of_machine(device)


def versions() -> dict[str, str]:
    """The versions of what computes, by name; what is not installed is left out."""
    found = {"graft": jobs.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            found["driver"] = _text(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    return found


def _of_gpu() -> dict[str, Any]:
    """Raises `pynvml.NVMLError` where the driver does not say."""
    pynvml.nvmlInit()
    try:
        handle = _handle(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip())
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        busy = celsius = None
        # Some virtual GPUs say neither.
        with suppress(pynvml.NVMLError):
            busy = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        with suppress(pynvml.NVMLError):
            celsius = float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
        return {"memory_used_bytes": int(memory.used), "memory_bytes": int(memory.total), "busy": busy, "celsius": celsius}
    finally:
        pynvml.nvmlShutdown()


def _handle(visible: str) -> Any:
    """The GPU that `CUDA_VISIBLE_DEVICES` names, by number or UUID; the first where it names none."""
    if visible and not visible.isdigit():
        return pynvml.nvmlDeviceGetHandleByUUID(visible)
    return pynvml.nvmlDeviceGetHandleByIndex(int(visible or 0))


def _of_machine(device: dict[str, Any]) -> dict[str, Any]:
    """Memory and load of the whole machine, within what the worker may use of it: a CPU is shared."""
    memory = psutil.virtual_memory()
    total = min(int(device.get("memory_bytes") or memory.total), memory.total)
    used = min(memory.total - memory.available, total)
    # Since the question before this one; the first has nothing to compare with, and says 0.
    return {"memory_used_bytes": used, "memory_bytes": total, "busy": psutil.cpu_percent(interval=None) / 100, "celsius": _celsius()}


def _celsius() -> float | None:
    """The hottest sensor of the processor; None where the machine has none to read, as most virtual ones."""
    sensors = psutil.sensors_temperatures()
    readings = [reading.current for name in ("coretemp", "k10temp", "cpu_thermal") for reading in sensors.get(name, ())]
    return max(readings, default=None)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
