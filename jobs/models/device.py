"""Looks what device this machine has, and how much memory a process takes. Imports torch only where a GPU was found."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from jobs import cpu
from jobs.device import Device

# Instructions that multiply bfloat16 in hardware; without them a CPU is slower in bfloat16 than in float32.
_BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
_BFLOAT16_COMPUTE_CAPABILITY = (8, 0)


def probe() -> Device:
    """Describes the device that training would use: the first visible GPU that torch can use, else the CPU."""
    return _probe_cuda() or _probe_cpu()


def owned_threads() -> int:
    """The cores that this process may run on (`sched_getaffinity`): more threads than cores slow oneDNN and MKL down several-fold."""
    return len(os.sched_getaffinity(0))


def memory(kind: str) -> dict[str, int]:
    """Memory in use now, in bytes, as a `step` event shows it.

    CPU: `resident_bytes` of this process. CUDA: `allocated_bytes` and `reserved_bytes` of torch's allocator, and what the whole
    device has in use (`device_used_bytes` of `device_total_bytes`, other processes included) by NVML.
    """
    if kind == "cpu":
        return {"resident_bytes": psutil.Process().memory_info().rss}
    import torch

    free, total = torch.cuda.mem_get_info()
    readings = {"allocated_bytes": torch.cuda.memory_allocated(), "reserved_bytes": torch.cuda.memory_reserved()}
    return readings | (_nvml_memory() or {"device_used_bytes": total - free, "device_total_bytes": total})


def _probe_cpu() -> Device:
    return Device(
        kind="cpu",
        name=cpu.description().get("model name", "CPU"),
        memory_bytes=_usable_memory(),
        threads=owned_threads(),
        bfloat16=bool(cpu.instructions() & _BFLOAT16_FLAGS),
        count=1,
    )


def _usable_memory() -> int:
    """The machine's memory, or the limit of the control group (version 2) where that is lower."""
    total = psutil.virtual_memory().total
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _probe_cuda() -> Device | None:
    """The first GPU. NVML answers without torch; only where it sees one is torch asked whether it can use it."""
    if gpu_count() == 0:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return Device(
        kind="cuda",
        name=properties.name,
        memory_bytes=properties.total_memory,
        threads=owned_threads(),
        bfloat16=(properties.major, properties.minor) >= _BFLOAT16_COMPUTE_CAPABILITY,
        count=torch.cuda.device_count(),
    )


def gpu_count() -> int:
    """The GPUs of this machine that NVML sees, asked without torch."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0


def gauges(kind: str) -> dict[str, float]:
    """How busy (`utilisation`, a share from 0 to 1) and how warm (`celsius`) the GPU is, as far as its driver says; nothing on a CPU."""
    if kind == "cpu":
        return {}
    import pynvml

    found: dict[str, float] = {}
    with suppress(pynvml.NVMLError):
        handle = _nvml_handle()
        # Some virtual GPUs say one and not the other.
        with suppress(pynvml.NVMLError):
            found["utilisation"] = pynvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        found["celsius"] = float(pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU))
    return found


def _nvml_handle() -> Any:
    """The GPU that torch uses, by its UUID since CUDA_VISIBLE_DEVICES renumbers. Raises `pynvml.NVMLError`."""
    import pynvml
    import torch

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")


def _nvml_memory() -> dict[str, int] | None:
    """The device's use by NVML. None where NVML does not know it (a MIG slice)."""
    import pynvml

    try:
        reading = pynvml.nvmlDeviceGetMemoryInfo(_nvml_handle())
    except pynvml.NVMLError:
        return None
    return {"device_used_bytes": int(reading.used), "device_total_bytes": int(reading.total)}
