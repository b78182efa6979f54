"""The environment of a training process."""

from __future__ import annotations

import os
from pathlib import Path

from webapp.settings.env import ENV

# What a training may know of our environment: where programs are, which language, which device and how many threads.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "OMP_NUM_THREADS")


def child_environment(home: Path) -> dict[str, str]:
    """The whole environment of a training: no secret, no network for the hub, its own folder for what libraries like to leave behind."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {
        "HOME": str(home),
        "TMPDIR": str(home),
        "GRAFT_REGIONS": str(ENV.var / "cache" / "regions"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONFAULTHANDLER": "1",
        "PYTHONUNBUFFERED": "1",
    }
    return passed | own
