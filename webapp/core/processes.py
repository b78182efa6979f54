"""Processes that must not outlive the one that started them.

A killed worker must not leave a training behind that holds a GPU, so every level of the tree asks the kernel for SIGKILL at its
parent's death (`prctl(PR_SET_PDEATHSIG)`, Linux). The kernel watches the thread that forked, so children are started from main threads.

`python -m webapp.core.processes PROGRAM ARGUMENT...` does the same for a program that is not ours: the setting survives `exec`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

PARENT_VARIABLE = "GRAFT_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent_pid: int | None = None) -> None:
    """Has the kernel kill this process (SIGKILL) when its parent dies; a parent that is dead already means: now.

    `parent_pid` is the pid of the parent; without it the one in `GRAFT_PARENT_PID`, and where that is not set (a program started by
    hand) nothing is done. Raises `OSError` where the kernel refuses.
    """
    if parent_pid is None:
        if PARENT_VARIABLE not in os.environ:
            return
        parent_pid = int(os.environ[PARENT_VARIABLE])
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    # The parent may have died before the call: then no signal will come.
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGKILL)


def group_members(group: int) -> list[int]:
    """The pids of the living processes of a process group. Zombies are dead: they hold neither memory nor a device."""
    members = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name in parentheses may hold anything, spaces and parentheses included: what counts comes after the last one.
            state, _parent, process_group = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
            if int(process_group) == group and state not in "ZX":
                members.append(int(folder.name))
    return members


def signal_group(group: int, number: signal.Signals) -> None:
    """Sends a signal to every process of a group; a group that is gone is no error."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    die_with_parent()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606
