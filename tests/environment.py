"""Loaded by pytest before Django (`-p tests.environment`): a private `var` and an offline hub for the whole suite."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

TEST_VAR = Path(tempfile.mkdtemp(prefix="graft-test-"))
(TEST_VAR / "static").mkdir()
os.environ.setdefault("GRAFT_VAR", str(TEST_VAR))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Playwright keeps an event loop in the main thread, in which the browser tests then speak to the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
