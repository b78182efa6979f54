"""How fast a device is, measured once by a short probe and kept. Free of torch: the probe is a child process.

A calibration is of one device, one set of libraries and one set of widths, and is kept in a file of its own named after them.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jobs.device import Device
from jobs.errors import GraftError
from jobs.planning.shape import ModelShape

VERSION = 1
LIBRARIES = ("torch", "transformers", "bitsandbytes")
PROBE_SECONDS = 120


@dataclass(frozen=True)
class Rates:
    """Matrix products in floating-point operations a second, by what is computed: the layers' outputs, their inputs' gradients, their
    weights' gradients; `packed` over weights in oneDNN's layout (0 where there is none); `head` the output layer, `attention` the batched
    products of attention.
    """

    forward: float
    backward: float
    gradient: float
    packed: float
    head: float
    attention: float


@dataclass(frozen=True)
class Calibration:
    """What the probe measured. `rates` by precision; `bandwidth` in bytes read and written a second; `call_seconds` is the least time of
    one call into torch; `runtime_bytes` is what a process takes before the engine allocates anything (CUDA: what the context takes).
    """

    key: str
    rates: Mapping[str, Rates]
    bandwidth: float
    call_seconds: float
    runtime_bytes: int
    probe_seconds: float

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Calibration:
        """Reads what `asdict` wrote. Raises `TypeError`, `KeyError` or `ValueError` where it is no calibration."""
        rates = {name: Rates(**values) for name, values in body["rates"].items()}
        return cls(**{**{key: value for key, value in body.items() if key != "version"}, "rates": rates})


def calibration_key(device: Device, shape: ModelShape) -> str:
    """What a calibration holds for: device, threads, libraries, widths."""
    libraries = [f"{name} {_version(name)}" for name in LIBRARIES]
    widths = f"widths {shape.hidden} {shape.intermediate} {shape.heads * shape.head_width} {shape.key_heads * shape.head_width}"
    return "; ".join([device["kind"], device["name"], f"{device['threads']} threads", *libraries, widths, f"vocabulary {shape.vocabulary}"])


def read_calibration(cache: Path, device: Device, shape: ModelShape) -> Calibration | None:
    """The calibration that is kept for this device and model; None where there is none, or one that cannot be read."""
    key = calibration_key(device, shape)
    try:
        body = json.loads(_file(cache, key).read_text(encoding="utf-8"))
        found = Calibration.from_json(body)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.key == key and body.get("version") == VERSION else None


def calibrate(cache: Path, device: Device, shape: ModelShape) -> Calibration:
    """Probes the device in a child process, keeps what was found, and returns it. Raises `GraftError("internal")` where the probe fails."""
    key = calibration_key(device, shape)
    threads = str(device["threads"])
    widths = [shape.hidden, shape.intermediate, shape.heads, shape.key_heads, shape.head_width, shape.vocabulary]
    command = [sys.executable, "-m", "jobs.planning.probe", device["kind"], *map(str, widths)]
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(
            command, env=environment, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True, timeout=PROBE_SECONDS
        )
        found = Calibration.from_json({**json.loads(done.stdout), "key": key})
    except subprocess.CalledProcessError as failure:
        raise GraftError("internal", reason=f"the calibration failed: {failure.stderr.strip().splitlines()[-1:]}") from failure
    except (subprocess.TimeoutExpired, ValueError, KeyError, TypeError) as failure:
        raise GraftError("internal", reason=f"the calibration failed: {failure}") from failure
    _keep(_file(cache, key), json.dumps({"version": VERSION, **asdict(found)}, indent=1) + "\n")
    return found


def _keep(path: Path, text: str) -> None:
    """Written aside and renamed, so that another process never reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def _file(cache: Path, key: str) -> Path:
    return cache / f"calibration-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
