"""`python -m benchmarks.live.writer RATE RUN...`: writes so many steps a second to each run; the supervisor's own code ships them.

A process of its own, as supervisors are; ends, with everything shipped, at SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

from benchmarks.ui.long_run import events

if TYPE_CHECKING:
    from webapp.runs.ingest import Ingest

# Points reach the file evenly, some every so often.
BEAT_SECONDS = 0.1


def main() -> int:
    """Writes until it is told to stop."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "webapp.settings.base")
    import django

    django.setup()
    from jobs.events import EventWriter
    from webapp.runs.ingest import Ingest
    from webapp.runs.models import Run
    from webapp.runs.supervisor import SHIP_SECONDS

    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    rate, runs = float(sys.argv[1]), list(Run.objects.filter(pk__in=sys.argv[2:]))
    paths = {run: run.attempt_folder(1) / "events.jsonl" for run in runs}
    writers = [EventWriter(path) for path in paths.values()]
    steps = [data for kind, data in events(1000) if kind == "step"]
    for writer in writers:
        writer.emit("plan", total_steps=1_000_000, start_step=0)
    threads = [threading.Thread(target=_ship, args=(Ingest(run, path), over, SHIP_SECONDS)) for run, path in paths.items()]
    for thread in threads:
        thread.start()
    start, written = time.monotonic(), 0
    while not over.wait(BEAT_SECONDS):
        while written < (time.monotonic() - start) * rate:
            for writer in writers:
                writer.emit("step", **{**steps[written % len(steps)], "step": written + 1})
            written += 1
    for thread in threads:
        thread.join()
    print(f"{written / (time.monotonic() - start):.1f}")
    return 0


def _ship(ingest: Ingest, over: threading.Event, seconds: float) -> None:
    ingest.start()
    while not over.wait(seconds):
        ingest.ship()
    ingest.ship()
    ingest.close()


if __name__ == "__main__":
    sys.exit(main())
