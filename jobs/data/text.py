"""From bytes to lines: the encoding and the line ends of a whole file, found before the first row is read.

The whole file is looked at (about 1 GB/s for ASCII), since a file that is not UTF-8 may show it only in its last line.
"""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jobs.data.files import CHUNK_BYTES, HEAD_BYTES, open_bytes, size_words
from jobs.data.rows import Limits, Problem, place, problem
from jobs.errors import UserError

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF32_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
# Bytes that Windows-1252 leaves undefined: text in it never has them, Shift-JIS, GBK and binary data do.
_UNDEFINED_1252 = re.compile(rb"[\x81\x8d\x8f\x90\x9d]")
_CONTROL = bytes(set(range(32)) - {0, 9, 10, 11, 12, 13, 27})
# Bytes that are no UTF-8 come out of the "surrogateescape" handler as these.
_ESCAPED = re.compile("[\udc80-\udcff]")

NAMES = {"utf-8": "UTF-8", "utf-8-sig": "UTF-8 with BOM", "utf-16": "UTF-16", "utf-16-le": "UTF-16 (little endian)"}
NAMES |= {"utf-16-be": "UTF-16 (big endian)", "cp1252": "Windows-1252", "utf-32": "UTF-32"}


@dataclass(frozen=True)
class TextFacts:
    """How a file is to be decoded. `broken`: it is UTF-8 with some bytes that are not. `newline`: what ends a line for the reader."""

    encoding: str
    guessed: bool
    broken: bool
    newline: str
    newline_name: str
    lines: int
    warnings: tuple[Problem, ...] = ()


@dataclass
class _Counts:
    size: int = 0
    good: int = 0
    bad: int = 0
    first_undefined: int = -1
    undefined_line: int = 0
    crlf: int = 0
    lf: int = 0
    cr: int = 0


def scan_text(path: Path, head: bytes, limits: Limits) -> TextFacts:
    """Reads the whole file once. Raises `UserError`: binary data, an encoding we do not know, more bytes than allowed."""
    encoding = _by_first_bytes(head)
    where = {"file": str(path)}
    if encoding is None or encoding == "utf-8-sig":
        if sum(head.count(bytes([byte])) for byte in _CONTROL + b"\x00") * 10 > len(head):
            raise UserError("file_kind_unknown", reason="it holds binary data", where=where)
        counts = _count_bytes(path, limits)
        encoding = _by_counts(counts, encoding or "utf-8", where)
    else:
        counts = _count_utf16(path, encoding, limits)
    guessed = encoding == "cp1252"
    warnings = [problem("encoding_guessed", severity="warning", encoding=NAMES[encoding])] if guessed else []
    newline, name, mixed = _newline(counts)
    if mixed:
        warnings.append(problem("newline_mixed", severity="warning", found=mixed))
    broken = counts.bad > 0 and encoding.startswith("utf-8")
    lines = counts.cr if newline == "\r" else counts.lf
    return TextFacts(encoding, guessed, broken, newline, name, lines, tuple(warnings))


def _by_first_bytes(head: bytes) -> str | None:
    if head.startswith(_UTF32_BOMS):
        return "utf-32"
    for bom, name in _BOMS:
        if head.startswith(bom):
            return name
    # Latin letters in UTF-16 leave every second byte zero, on the odd places where the low byte comes first.
    sample = head[: min(len(head), 4096) // 2 * 2]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if max(even, odd) * 10 >= len(sample) * 3 and min(even, odd) * 20 <= max(even, odd):
        return "utf-16-le" if odd > even else "utf-16-be"
    return None


def _chunks(path: Path, limits: Limits) -> Iterator[bytes]:
    size = 0
    with open_bytes(path, limits) as file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            if size > limits.unpacked_bytes:
                raise UserError("file_too_large", limit=size_words(limits.unpacked_bytes), where={"file": str(path)})
            yield chunk


def _count_bytes(path: Path, limits: Limits) -> _Counts:
    counts = _Counts()
    last = rest = b""
    for chunk in _chunks(path, limits):
        if counts.first_undefined < 0 and not chunk.isascii() and (found := _UNDEFINED_1252.search(chunk)):
            counts.first_undefined = counts.size + found.start()
            counts.undefined_line = counts.lf + chunk[: found.start()].count(b"\n") + 1
        _count_ends(counts, last + chunk[:1], chunk)
        counts.size += len(chunk)
        last = chunk[-1:]
        if rest or not chunk.isascii():
            rest = _count_utf8(counts, rest + chunk)
    counts.bad += len(rest)
    return counts


def _count_utf8(counts: _Counts, data: bytes) -> bytes:
    """Bytes that continue a character speak for UTF-8; bytes that had to be escaped speak against it. Gives what is cut off at the end."""
    try:
        text, used = codecs.utf_8_decode(data, "strict", False)
    except UnicodeDecodeError:
        text, used = codecs.utf_8_decode(data, "surrogateescape", False)
        counts.bad += len(text) - len(text.encode("utf-8", "ignore").decode())
    counts.good += max(0, used - len(text))
    return data[used:]


def _count_ends(counts: _Counts, seam: bytes, chunk: bytes) -> None:
    counts.lf += chunk.count(b"\n")
    if b"\r" in chunk or seam == b"\r\n":
        counts.crlf += chunk.count(b"\r\n") + (seam == b"\r\n")
        counts.cr += chunk.count(b"\r")


def _by_counts(counts: _Counts, encoding: str, where: dict[str, str]) -> str:
    if counts.bad == 0 or counts.good > counts.bad:
        return encoding
    if counts.first_undefined >= 0:
        raise UserError("encoding_unknown", offset=counts.first_undefined, line=counts.undefined_line, where=where)
    return "cp1252"


def _count_utf16(path: Path, encoding: str, limits: Limits) -> _Counts:
    counts = _Counts()
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    last = ""
    where = {"file": str(path)}
    for chunk in _chunks(path, limits):
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError:
            raise UserError("encoding_unknown", offset=counts.size, line=counts.lf + 1, where=where) from None
        counts.crlf += text.count("\r\n") + (last + text[:1] == "\r\n")
        counts.lf += text.count("\n")
        counts.cr += text.count("\r")
        counts.size += len(chunk)
        counts.good += len(text)
        last = text[-1:]
    return counts


def _newline(counts: _Counts) -> tuple[str, str, str]:
    """What ends a line, its name, and where kinds are mixed what was found."""
    if counts.lf == 0 and counts.cr:
        return "\r", "CR (old Mac)", ""
    plain = counts.lf - counts.crlf
    if counts.crlf and plain:
        return "\n", "mixed", f"{counts.crlf} Windows, {plain} Unix"
    return "\n", "CRLF (Windows)" if counts.crlf else "LF", ""


def decode_head(head: bytes, encoding: str) -> str:
    """The start of the file as text, for recognising; the last, perhaps cut, character is dropped."""
    return codecs.getincrementaldecoder(encoding)("replace").decode(head[:HEAD_BYTES])


@contextmanager
def open_text(path: Path, facts: TextFacts, limits: Limits) -> Iterator[io.TextIOWrapper]:
    """The file as text. Line ends stay as they are; bytes that are no UTF-8 become lone surrogates, which `broken_text` finds."""
    errors = "surrogateescape" if facts.encoding.startswith("utf-8") else "strict"
    with open_bytes(path, limits) as file:
        wrapper = io.TextIOWrapper(file, encoding=facts.encoding, errors=errors, newline=facts.newline)
        try:
            yield wrapper
        finally:
            wrapper.detach()


def read_lines(file: io.TextIOWrapper, facts: TextFacts, limits: Limits) -> Iterator[tuple[int, str | Problem]]:
    """Lines with their numbers from 1, ends included. A line that is too long or that holds bytes which are no text is a `Problem`."""
    number = 0
    limit = limits.line_characters
    while line := file.readline(limit + 1):
        number += 1
        if len(line) > limit:
            while line and not line.endswith(facts.newline):
                line = file.readline(limit)
            yield number, problem("line_too_long", place(number), limit=f"{limit:,} characters")
            continue
        fault = broken_text(line) if facts.broken else None
        if fault is None and "\x00" in line:
            fault = (line.index("\x00"), "a zero byte, which is no text")
        if fault is not None:
            where = f"column {fault[0] + 1} holds {fault[1]}"
            yield number, problem("text_broken", place(number), column=fault[0] + 1, what=where)
            continue
        yield number, line


def broken_text(text: str) -> tuple[int, str] | None:
    """Where `text` holds a byte that was no UTF-8 (offset from 0), and what it is."""
    found = _ESCAPED.search(text)
    return (found.start(), f"the byte 0x{ord(found[0]) - 0xDC00:02X}, which is not UTF-8") if found else None
