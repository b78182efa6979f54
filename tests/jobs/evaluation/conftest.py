"""All of the folder computes on one thread."""

from tests.threads import one_thread_throughout

__all__ = ["one_thread_throughout"]
