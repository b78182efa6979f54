"""Loaded by pytest before Django (`-p tests.environment`): a private `var`, an offline hub and a core of its own for each worker."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

# A worker of xdist keeps to one core, and so does what it starts: several processes with a thread for each core would wait for each other.
ALL_CORES = sorted(os.sched_getaffinity(0))
if worker := os.environ.get("PYTEST_XDIST_WORKER", "").removeprefix("gw"):
    os.sched_setaffinity(0, {ALL_CORES[int(worker) % len(ALL_CORES)]})

TEST_VAR = Path(tempfile.mkdtemp(prefix="graft-test-"))
(TEST_VAR / "static").mkdir()
_MADE_BY = os.getpid()


@atexit.register
def _remove() -> None:
    # A forked child has this too, and must leave the folder to its parent.
    if os.getpid() == _MADE_BY:
        shutil.rmtree(TEST_VAR, ignore_errors=True)


os.environ.setdefault("GRAFT_VAR", str(TEST_VAR))
# No run of a test finds the compiled regions of whoever starts the suite.
os.environ["GRAFT_REGIONS"] = str(TEST_VAR / "regions")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Playwright keeps an event loop in the main thread, in which the browser tests then speak to the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
