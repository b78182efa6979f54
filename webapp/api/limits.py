"""How often a token may ask: so many requests in each minute, counted in Redis. While Redis is away nobody is refused.

The answer's headers say how much is left, as OpenAI's do: `x-ratelimit-limit-requests`, `-remaining-requests`, `-reset-requests`.
"""

from __future__ import annotations

import time
from functools import cache

from django.conf import settings
from django.http import HttpRequest
from redis import Redis, RedisError

from webapp.accounts.models import ApiToken
from webapp.api.errors import ApiError
from webapp.core.redis import client
from webapp.settings.env import ENV

WINDOW_SECONDS = 60


def count_request(request: HttpRequest, token: ApiToken) -> None:
    """Counts a request of the token. Raises `ApiError` 429 with `Retry-After` where its minute is used up."""
    limit, now = ENV.api_requests_per_minute, time.time()
    window = int(now // WINDOW_SECONDS)
    left_seconds = (window + 1) * WINDOW_SECONDS - now
    key = f"graft:api:requests:{token.pk.hex}:{window}"
    try:
        pipeline = _client(settings.GRAFT_REDIS_URL).pipeline(transaction=False)
        pipeline.incr(key)
        pipeline.expire(key, 2 * WINDOW_SECONDS)
        used = int(pipeline.execute()[0])
    except RedisError:
        return
    headers = {
        "x-ratelimit-limit-requests": str(limit),
        "x-ratelimit-remaining-requests": str(max(0, limit - used)),
        "x-ratelimit-reset-requests": f"{left_seconds:.3f}s",
    }
    request.api_headers = headers  # type: ignore[attr-defined]
    if used > limit:
        words = f"Rate limit reached: {limit} requests a minute. Try again in {left_seconds:.0f} s."
        wait = {"Retry-After": str(int(left_seconds) + 1)}
        raise ApiError(429, words, code="rate_limit_exceeded", headers=wait)


@cache
def _client(url: str) -> Redis:
    """One client with its connections for the process; `url` so that a test's Redis is not the one before."""
    return client()
