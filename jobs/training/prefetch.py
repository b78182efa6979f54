"""Making the next items while the present one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

AHEAD = 2


def pays(device: str) -> bool:
    """Whether a thread of its own is worth it: on a CPU it takes cores that compute, and the interpreter from what feeds them."""
    return device != "cpu"


def prefetched(items: Iterator[Item]) -> Generator[Item, None, None]:
    """`items` in their order, made in one thread and at most `AHEAD` at a time. What making one raises is raised here.

    The thread ends with the generator: exhaust it, or close it.
    """
    end = object()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as thread:
        waiting = deque(thread.submit(next, items, end) for _ in range(AHEAD))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(thread.submit(next, items, end))
            yield item  # type: ignore[misc]  # `end` was ruled out by the line above
