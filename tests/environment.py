"""Loaded by pytest before Django (`-p tests.environment`): a private `var` and an offline hub for the whole suite."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

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
