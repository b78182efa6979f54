"""Names of what a run has in Redis."""

from __future__ import annotations


def stream_key(run_id: object) -> str:
    """The name of a run's Redis Stream. Entries have the id `<attempt>-<seq>` and one field `e`, the event with its attempt as JSON."""
    return f"graft:run:{run_id}"
