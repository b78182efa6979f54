"""Range requests as RFC 9110 has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.http import Http404
from django.test import AsyncRequestFactory

from webapp.core.http import PIECE_BYTES, Slice, file_response

BODY = bytes(range(100))
SHA = "ab" * 32


@pytest.fixture
def part(tmp_path: Path) -> Slice:
    """Bytes 10 to 59 of a file."""
    path = tmp_path / "0123"
    path.write_bytes(BODY)
    return Slice(path, 10, 50, SHA, 'weights "v1".bin')


async def get(part: Slice, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
    response = file_response(AsyncRequestFactory().generic(method, "/", headers=headers), part)
    body = b"".join([piece async for piece in response]) if response.streaming else response.content
    return response.status_code, dict(response.headers), body


async def test_the_whole(part: Slice) -> None:
    status, headers, body = await get(part)
    assert (status, body) == (200, BODY[10:60])
    assert headers["Content-Length"] == "50"
    assert headers["Accept-Ranges"] == "bytes"
    assert headers["ETag"] == f'"{SHA}"'
    assert headers["Content-Disposition"] == r'attachment; filename="weights \"v1\".bin"'
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Range" not in headers


@pytest.mark.parametrize(
    ("asked", "content_range", "body"),
    [
        ("bytes=0-0", "bytes 0-0/50", BODY[10:11]),
        ("bytes=0-", "bytes 0-49/50", BODY[10:60]),
        ("bytes=20-29", "bytes 20-29/50", BODY[30:40]),
        ("bytes=40-1000", "bytes 40-49/50", BODY[50:60]),
        ("bytes=-5", "bytes 45-49/50", BODY[55:60]),
        ("bytes=-500", "bytes 0-49/50", BODY[10:60]),
        ("bytes= 3 - 4", "bytes 3-4/50", BODY[13:15]),
    ],
)
async def test_a_range(part: Slice, asked: str, content_range: str, body: bytes) -> None:
    status, headers, got = await get(part, range=asked)
    assert (status, headers["Content-Range"], headers["Content-Length"], got) == (206, content_range, str(len(body)), body)


@pytest.mark.parametrize("asked", ["bytes=50-", "bytes=50-60", "bytes=999999999999-", "bytes=-0"])
async def test_a_range_beyond_the_end(part: Slice, asked: str) -> None:
    status, headers, body = await get(part, range=asked)
    assert (status, headers["Content-Range"], body) == (416, "bytes */50", b"")


@pytest.mark.parametrize("asked", ["bytes=5-4", "bytes=0-1,3-4", "lines=1-2", "bytes=a-b", "bytes=-", "bytes=1", "bytes=" + "9" * 40 + "-"])
async def test_what_is_no_single_range_gets_the_whole(part: Slice, asked: str) -> None:
    status, _, body = await get(part, range=asked)
    assert (status, body) == (200, BODY[10:60])


async def test_if_range(part: Slice) -> None:
    assert (await get(part, **{"range": "bytes=0-1", "if-range": f'"{SHA}"'}))[0] == 206
    for other in ('"cd"', f'W/"{SHA}"', "Sun, 06 Nov 1994 08:49:37 GMT"):
        status, _, body = await get(part, **{"range": "bytes=0-1", "if-range": other})
        assert (status, len(body)) == (200, 50)


async def test_if_none_match(part: Slice) -> None:
    status, headers, body = await get(part, **{"if-none-match": f'"x", "{SHA}"'})
    assert (status, headers["ETag"], body) == (304, f'"{SHA}"', b"")
    assert (await get(part, **{"if-none-match": '"x"'}))[0] == 200


async def test_head(part: Slice) -> None:
    assert (await get(part, "HEAD"))[1:] == ((await get(part))[1], b"")
    status, headers, body = await get(part, "HEAD", range="bytes=1-2")
    assert (status, headers["Content-Length"], body) == (206, "2", b"")


async def test_parts_make_the_whole(tmp_path: Path) -> None:
    """More than one piece of reading, resumed in the middle of one."""
    body = bytes(range(251)) * 4000
    path = tmp_path / "large"
    path.write_bytes(body)
    part = Slice(path, 0, len(body), SHA, "large")
    cut = PIECE_BYTES + 12_345
    first, second = await get(part, range=f"bytes=0-{cut - 1}"), await get(part, range=f"bytes={cut}-")
    assert first[2] + second[2] == body


async def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    part = Slice(tmp_path / "empty", 0, 0, SHA, "empty")
    assert (await get(part))[::2] == (200, b"")
    assert (await get(part, range="bytes=0-"))[0] == 416


@pytest.mark.parametrize("offset", [0, 60])
async def test_a_file_that_is_gone_or_too_short(tmp_path: Path, part: Slice, offset: int) -> None:
    with pytest.raises(Http404):
        await get(Slice(part.path if offset else tmp_path / "gone", offset, 50, SHA, "x"))


async def test_a_name_cannot_break_the_header(part: Slice) -> None:
    odd = Slice(part.path, 0, 1, SHA, 'Modell "ü"\u202e\r\nX-Evil: 1.zip')
    _, headers, _ = await get(odd)
    assert "\n" not in headers["Content-Disposition"]
    assert headers["Content-Disposition"].startswith("attachment; filename*=utf-8''Modell%20%22%C3%BC%22")
