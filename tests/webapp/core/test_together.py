"""Questions that come at once are answered at once, each with its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from webapp.core import together
from webapp.core.together import Together

pytestmark = pytest.mark.django_db(transaction=True)


async def test_questions_of_one_moment_are_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "AT_ONCE", 30)
    calls: list[int] = []

    def double(numbers: Sequence[int]) -> list[int]:
        calls.append(len(numbers))
        return [2 * number for number in numbers]

    asked = Together(double)
    assert await asyncio.gather(*(asked.ask(number) for number in range(70))) == [2 * number for number in range(70)]
    assert calls == [30, 30, 10]
    assert await asked.ask(4) == 8


async def test_a_failure_is_everybodys_and_the_next_call_is_made() -> None:
    def root(numbers: Sequence[float]) -> list[float]:
        if min(numbers) < 0:
            raise ValueError("no root")
        return [number**0.5 for number in numbers]

    asked = Together(root)
    found = await asyncio.gather(asked.ask(4.0), asked.ask(-1.0), return_exceptions=True)
    assert [str(failure) for failure in found] == ["no root", "no root"]
    assert await asked.ask(9.0) == 3.0


async def test_who_leaves_meanwhile_takes_nothing_from_the_others() -> None:
    asked = Together(lambda numbers: [-number for number in numbers])
    gone = asyncio.ensure_future(asked.ask(1))
    await asyncio.sleep(0)
    gone.cancel()
    assert await asked.ask(2) == -2
