"""The first program of a box: takes rights away from itself, then becomes `python -m jobs`. Run by path, standard library alone.

Arguments: one JSON object (see `webapp.core.box`), then the arguments of `python -m jobs`. What could be taken away is written as
one JSON object to the descriptor `report`. Kernel interfaces: unshare(2), prctl(2), setrlimit(2), and those of `jobs.confinement`.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from typing import Any

# Started without the paths of any library; what is imported from here knows the standard library alone.
sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
from jobs.confinement import PLAIN_FILES, READ, READ_AND_WRITE_FILE, limit_files, no_local_sockets, no_sockets

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9

# What an interpreter and its libraries read besides their own folders.
_SYSTEM = (
    "/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/proc/self", "/proc/cpuinfo",
    "/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu", "/sys/fs/cgroup", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip
_NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/ssl", "/run/systemd/resolve")


def main() -> None:
    """Limits this process and becomes the engine's command."""
    plan = json.loads(sys.argv[1])
    cut = not plan["network"] and _cut_network()
    files = _limit_reach(plan)
    filtered = no_local_sockets() if plan["network"] else no_sockets()
    isolation = {"network": cut or (filtered and not plan["network"]), "files": files, "calls": filtered}
    for name, value in plan["limits"].items():
        limit = getattr(resource, name)
        hard = resource.getrlimit(limit)[1]
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # Of processor time the soft limit alone: its signal says what happened, and nothing in the child catches it.
        resource.setrlimit(limit, (allowed, hard if name == "RLIMIT_CPU" else allowed))
    # Last, since the kernel forgets it when a process changes its rights. It is the death of the starting thread that counts.
    _LIBC.prctl(_PR_SET_PDEATHSIG, _SIGKILL, 0, 0, 0)
    if os.getppid() != plan["parent"]:
        os._exit(1)
    os.write(plan["report"], json.dumps(isolation).encode())
    os.close(plan["report"])
    os.execve(sys.executable, [sys.executable, "-m", "jobs", *sys.argv[2:]], dict(os.environ))  # noqa: S606


def _cut_network() -> bool:
    """A network of its own, with nothing in it."""
    return bool(_LIBC.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0)


def _limit_reach(plan: dict[str, Any]) -> bool:
    """Leaves of the file system what the plan names: to read, and to write."""
    system = (
        *_SYSTEM,
        *(_NETWORK if plan["network"] else ()),
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
    )
    rules = [(path, READ) for path in (*system, *plan["readable"])]
    rules += [(path, PLAIN_FILES) for path in plan["writable"]]
    return limit_files([*rules, ("/dev/null", READ_AND_WRITE_FILE)])


if __name__ == "__main__":
    main()
