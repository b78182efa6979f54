"""A device, as `python -m jobs device` describes it, and what it can compute. Free of torch: the control plane asks before launch."""

from __future__ import annotations

from typing import TypedDict

from jobs.errors import UserError


class Device(TypedDict):
    """The answer of `python -m jobs device`; `memory_bytes` is of the GPU, or what this process may use of the machine's."""

    kind: str
    name: str
    memory_bytes: int
    threads: int
    bfloat16: bool
    count: int


def torch_name(device: Device) -> str:
    """The device in torch's words; of several GPUs the first."""
    return "cuda:0" if device["kind"] == "cuda" else "cpu"


def choose_precision(asked: str, device: Device) -> str:
    """`float32`, `bfloat16` or `float16` for one of them or `auto`. Raises `UserError("device_cannot")`.

    A CPU computes bfloat16 in software where it has no instructions for it; a GPU without them is refused. Float16 is for GPUs alone: no
    CPU is faster by it, and only its range is a risk. `auto` never takes it.
    """
    if asked == "auto":
        return "bfloat16" if device["bfloat16"] else "float32"
    if asked == "bfloat16" and device["kind"] == "cuda" and not device["bfloat16"]:
        raise UserError(
            "device_cannot",
            what="bfloat16",
            reason=f"{device['name']} has no bfloat16 arithmetic",
            instead="Choose float32 or float16, or auto.",
            where={"field": "training.precision"},
        )
    if asked == "float16" and device["kind"] != "cuda":
        raise UserError(
            "device_cannot",
            what="float16",
            reason="training in it is for GPUs, and this is a CPU",
            instead="Choose float32 or bfloat16, or auto.",
            where={"field": "training.precision"},
        )
    return asked
