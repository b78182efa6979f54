"""Who goes first where models are served and trained on the same device: `GRAFT_SERVING`."""

from __future__ import annotations

from webapp.runs.models import Run
from webapp.runs.states import ACTIVE, State
from webapp.settings.env import ENV


def training_first() -> bool:
    """Whether serving has to wait: it yields to training here, and a run is at work or waits for a worker."""
    return ENV.serving == "idle" and Run.objects.filter(state__in=(*ACTIVE, State.QUEUED)).exists()
