"""Let a worker end the run that it has and take no other, and let it take runs again."""

from __future__ import annotations

from webapp.runs.models import Worker


def drain(worker: Worker, *, draining: bool) -> None:
    """Sets it; the claim asks for it, so that it holds from the next claim on, and after a restart of the worker too."""
    Worker.objects.filter(pk=worker.pk).update(draining=draining)
    worker.draining = draining
