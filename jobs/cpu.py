"""What this machine's processor says of itself."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def description() -> dict[str, str]:
    """The first processor's block of /proc/cpuinfo, keys in lower case; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip().lower(): value.strip() for key, value in pairs}


def instructions() -> frozenset[str]:
    """The names of its sets of instructions: `flags` of an x86 processor, `features` of an ARM one."""
    return frozenset((description().get("flags") or description().get("features") or "").split())
