"""The first program of a box: takes rights away from itself, then becomes `python -m jobs`. Standard library alone; run by path.

Arguments: one JSON object (see `webapp.core.box`), then the arguments of `python -m jobs`. What could be taken away is written as
one JSON object to the descriptor `report`. Kernel interfaces: landlock(7), unshare(2), seccomp(2), prctl(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SIGKILL = 9

# The same numbers on every architecture (they were added after the tables were unified).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_READ = _EXECUTE | _READ_FILE | _READ_DIR
# How many kinds of access to files each version of the interface knows, from version 1 on.
_FILE_RIGHTS = (13, 14, 15, 15, 16)
# What is never made, in a folder that is written to either: devices, sockets and pipes, and links, which whoever reads the folder later
# would follow with more rights than we have.
_NEVER = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 15)
# From version 6 on: neither signals nor abstract sockets reach what is outside.
_SCOPES_SINCE, _SCOPES = 6, (1 << 0) | (1 << 1)
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE

# Filters of system calls (linux/bpf_common.h, linux/seccomp.h): a word of the call is loaded, compared, and leads to an answer.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_AF_UNIX, _X32 = 1, 0x40000000
# By machine: the kernel's word for it; `socket`; and what no reader of a file calls, each a way around the other limits: ptrace,
# process_vm_readv and _writev, mount, unshare, setns, bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl, io_uring_setup.
_CALLS = {
    "x86_64": (0xC000003E, 41, (101, 310, 311, 165, 272, 308, 321, 298, 323, 248, 249, 250, 425)),
    "aarch64": (0xC00000B7, 198, (117, 270, 271, 40, 97, 268, 280, 241, 282, 217, 218, 219, 425)),
}

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
    filtered = _filter_calls(network=plan["network"])
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
    version = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = (1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1
    attributes = struct.pack("=QQQ", handled, 0, _SCOPES) if version >= _SCOPES_SINCE else struct.pack("=Q", handled)
    ruleset = _LIBC.syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    system = (
        *_SYSTEM,
        *(_NETWORK if plan["network"] else ()),
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(os.path.realpath(sys.executable)),
    )
    rules = [(path, _READ) for path in (*system, *plan["readable"])]
    rules += [(path, handled & ~_NEVER) for path in plan["writable"]]
    rules += [("/dev/null", _READ_FILE | _WRITE_FILE)]
    for path, rights in rules:
        _allow(ruleset, path, rights & handled)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done = _LIBC.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(done)


def _filter_calls(*, network: bool) -> bool:
    """Takes system calls away: sockets of Unix, which lead to Redis whatever the network is; all sockets where there is no `network`."""
    if platform.machine() not in _CALLS:
        return False
    architecture, socket, refused = _CALLS[platform.machine()]
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), (_ANSWER, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if architecture == _CALLS["x86_64"][0]:
        steps += [(_IF_AT_LEAST, 0, 1, _X32), (_ANSWER, 0, 0, _KILL)]
    for number in refused:
        steps += [(_IF_EQUAL, 0, 1, number), (_ANSWER, 0, 0, _REFUSE | errno.EPERM)]
    if network:
        steps += [(_IF_EQUAL, 0, 3, socket), (_LOAD, 0, 0, _FIRST_ARGUMENT), (_IF_EQUAL, 0, 1, _AF_UNIX)]
        steps += [(_ANSWER, 0, 0, _REFUSE | errno.EACCES)]
    else:
        steps += [(_IF_EQUAL, 0, 1, socket), (_ANSWER, 0, 0, _REFUSE | errno.ENETUNREACH)]
    steps.append((_ANSWER, 0, 0, _ALLOW))
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filters = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, 2, filters, 0, 0) == 0)


def _allow(ruleset: int, path: str, rights: int) -> None:
    """One rule: `rights` on a file, or on everything beneath a folder. What is not there needs none."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _OF_A_FILE
    _LIBC.syscall(_ADD_RULE, ruleset, 1, ctypes.create_string_buffer(struct.pack("=Qi", rights, handle)), 0)
    os.close(handle)


if __name__ == "__main__":
    main()
