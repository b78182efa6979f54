"""Rights that a process takes away from itself for good, its children's among them: files by Landlock, system calls by a filter.

Standard library alone: the first program of a box imports it too. Kernel interfaces: landlock(7), seccomp(2), prctl(2). Each function
returns whether the kernel did it; a thread that runs already is not reached by either.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 22, 38
# What lets root look into processes past Landlock: CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON. The version is that of capset(2).
_CAPABILITIES_VERSION, _POWERS = 0x20080522, (1 << 19) | (1 << 21) | (1 << 38)

# The same numbers on every architecture (they were added after the tables were unified).
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE, _CONTROL = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
READ_AND_WRITE_FILE = _READ_FILE | _WRITE_FILE
EVERYTHING = (1 << 16) - 1
# All but what is never made in a folder that a stranger's file is read in: devices, sockets and pipes, and links, which whoever reads the
# folder later would follow with more rights than we have.
PLAIN_FILES = EVERYTHING & ~((1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 12) | _CONTROL)
# How many kinds of access to files each version of the interface knows, from version 1 on.
_FILE_RIGHTS = (13, 14, 15, 15, 16)
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _CONTROL
# From version 6 on: neither abstract sockets nor signals reach what is outside.
_SCOPES_SINCE, _SCOPES = 6, (1 << 0) | (1 << 1)

# Filters of system calls (linux/bpf_common.h, linux/seccomp.h): a word of the call is loaded, compared, and leads to an answer.
_LOAD, _IF_EQUAL, _IF_AT_LEAST, _ANSWER = 0x20, 0x15, 0x35, 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_AF_UNIX, _X32 = 1, 0x40000000
# By machine: the kernel's word for it; `socket`; `connect`; and what nobody here calls, each a way around the other limits: ptrace,
# process_vm_readv and _writev, mount, unshare, setns, bpf, perf_event_open, userfaultfd, add_key, request_key, keyctl, io_uring_setup.
_CALLS = {
    "x86_64": (0xC000003E, 41, 42, (101, 310, 311, 165, 272, 308, 321, 298, 323, 248, 249, 250, 425)),
    "aarch64": (0xC00000B7, 198, 203, (117, 270, 271, 40, 97, 268, 280, 241, 282, 217, 218, 219, 425)),
}
_Step = tuple[int, int, int, int]


def can_limit_files() -> bool:
    """Whether this kernel has Landlock, and it is switched on."""
    return bool(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1) >= 1)


def limit_files(rules: Iterable[tuple[str, int]]) -> bool:
    """Leaves of the file system the paths of `rules`, each with its rights, and all beneath. What is not there needs no rule."""
    version = _LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)
    if version < 1:
        return False
    handled = (1 << _FILE_RIGHTS[min(version, len(_FILE_RIGHTS)) - 1]) - 1
    attributes = struct.pack("=QQQ", handled, 0, _SCOPES) if version >= _SCOPES_SINCE else struct.pack("=Q", handled)
    ruleset = _LIBC.syscall(_CREATE_RULESET, ctypes.create_string_buffer(attributes), ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    for path, rights in rules:
        _allow(ruleset, path, rights & handled)
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    done = _LIBC.syscall(_RESTRICT_SELF, ruleset, 0) == 0
    os.close(ruleset)
    return bool(done)


def all_but(private: str) -> Iterator[tuple[str, int]]:
    """Rules that leave the whole file system but `private` and what is beneath it, and but the lists of the folders that lead there."""
    folder = os.path.realpath(private)
    while (above := os.path.dirname(folder)) != folder:
        for name in os.listdir(above):
            path = os.path.join(above, name)
            if path != folder and not os.path.islink(path):
                yield path, EVERYTHING
        folder = above


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _OF_A_FILE
    _LIBC.syscall(_ADD_RULE, ruleset, 1, ctypes.create_string_buffer(struct.pack("=Qi", rights, handle)), 0)
    os.close(handle)


def no_powers() -> bool:
    """Where this is root: no looking into other processes, their environment among it. To be called after `limit_files`, which sees to it
    that no program that is started gets the powers back.
    """
    header, sets = struct.pack("=Ii", _CAPABILITIES_VERSION, 0), ctypes.create_string_buffer(24)
    if _LIBC.capget(header, sets) != 0:
        return False
    words = struct.unpack("=6I", sets.raw)
    left = [word & ~((_POWERS >> 32) if place >= 3 else _POWERS & 0xFFFFFFFF) for place, word in enumerate(words)]
    return bool(_LIBC.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *left))) == 0)


def no_sockets() -> bool:
    """No socket at all, and no way around the other limits."""
    return _filter(lambda calls: [(_IF_EQUAL, 0, 1, calls[1]), (_ANSWER, 0, 0, _REFUSE | errno.ENETUNREACH)])


def no_local_sockets() -> bool:
    """The network alone: no socket of Unix, which leads to Redis whatever the network is. And no way around the other limits."""

    def steps(calls: tuple[int, int, int, Sequence[int]]) -> list[_Step]:
        is_local = [(_LOAD, 0, 0, _FIRST_ARGUMENT), (_IF_EQUAL, 0, 1, _AF_UNIX)]
        return [(_IF_EQUAL, 0, 3, calls[1]), *is_local, (_ANSWER, 0, 0, _REFUSE | errno.EACCES)]

    return _filter(steps)


def no_connections() -> bool:
    """Sockets may be made, as GPU drivers do among their own processes, but lead nowhere. And no way around the other limits."""
    return _filter(lambda calls: [(_IF_EQUAL, 0, 1, calls[2]), (_ANSWER, 0, 0, _REFUSE | errno.EACCES)])


def _filter(steps_of: Callable[[tuple[int, int, int, Sequence[int]]], list[_Step]]) -> bool:
    if platform.machine() not in _CALLS:
        return False
    calls = _CALLS[platform.machine()]
    architecture, _, _, refused = calls
    steps = [(_LOAD, 0, 0, _ARCHITECTURE), (_IF_EQUAL, 1, 0, architecture), (_ANSWER, 0, 0, _KILL), (_LOAD, 0, 0, _NUMBER)]
    if platform.machine() == "x86_64":
        steps += [(_IF_AT_LEAST, 0, 1, _X32), (_ANSWER, 0, 0, _KILL)]
    for number in refused:
        steps += [(_IF_EQUAL, 0, 1, number), (_ANSWER, 0, 0, _REFUSE | errno.EPERM)]
    steps += [*steps_of(calls), (_ANSWER, 0, 0, _ALLOW)]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    filters = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(program)))
    _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, 2, filters, 0, 0) == 0)
