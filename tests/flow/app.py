"""The Celery app of the project, whose runs are trained by `tests.webapp.runs.trainer`: for tests of everything around the engine.

`FLOW_TRAINER` holds the program's options, `FLOW_VISIBILITY_SECONDS` the broker's visibility timeout if it is to be another;
with `FLOW_DEAF` the worker never asks Redis for a message, as one whose connection was lost without a word.
"""

from __future__ import annotations

import os
import sys

from kombu.transport.redis import Channel

from webapp.celery import app
from webapp.runs import child, standby
from webapp.runs.kinds import Kind

TRAINER = (sys.executable, "-m", "tests.webapp.runs.trainer", *os.environ["FLOW_TRAINER"].split())
child.PROGRAMS[Kind.TRAIN] = TRAINER
standby.COMMAND = (*TRAINER, "--standby")
if seconds := os.environ.get("FLOW_VISIBILITY_SECONDS"):
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "visibility_timeout": int(seconds)}
if os.environ.get("FLOW_DEAF"):
    Channel._brpop_start = lambda *_arguments, **_named: None

__all__ = ["app"]
