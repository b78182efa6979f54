"""The bytes of an uploaded file: what kind it is by its first bytes (never by its name), and gzip unpacked within limits."""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from jobs.data.rows import Limits
from jobs.errors import UserError

HEAD_BYTES = 65_536
CHUNK_BYTES = 2**20
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"

_AS_CSV = "Open it in the program it comes from, choose “Save as” or “Download” with the type CSV (UTF-8), and upload that file."
_UNPACK = "Unpack it, and upload the file of rows that is inside (or pack it with gzip: .gz)."
_TEXT = "Copy the text into a table or a text file, and upload that."
_SAFE = "Save the rows as JSONL, CSV or Parquet in the program that wrote it; this kind can hold code and is never opened."
_AGAIN = "The download went wrong: fetch the file itself, not the page about it."

# (offset, first bytes, what it is, what to do). Signatures as in the file formats' own specifications.
_FOREIGN: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Excel or Word file (.xls, .doc)", _AS_CSV),
    (0, b"BZh", "a file packed with bzip2", _UNPACK),
    (0, b"\xfd7zXZ\x00", "a file packed with xz", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a file packed with Zstandard", _UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (0, b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (257, b"ustar", "a tar archive", _UNPACK),
    (0, b"%PDF-", "a PDF document", _TEXT),
    (0, b"{\\rtf", "a document of a word processor (RTF)", _TEXT),
    (0, b"\x89PNG\r\n", "a picture (PNG)", _TEXT),
    (0, b"\xff\xd8\xff", "a picture (JPEG)", _TEXT),
    (0, b"GIF8", "a picture (GIF)", _TEXT),
    (8, b"WEBP", "a picture (WebP)", _TEXT),
    (0, b"SQLite format 3\x00", "a SQLite database", "Export the table as CSV, and upload that."),
    (0, b"ARROW1\x00\x00", "an Arrow (Feather) file", "Save it as Parquet, and upload that."),
    (0, b"Obj\x01", "an Avro file", "Save it as Parquet or JSONL, and upload that."),
    (0, b"ORC", "an ORC file", "Save it as Parquet, and upload that."),
    (0, b"PARE", "an encrypted Parquet file", "Save it without encryption, and upload that."),
    (0, b"GGUF", "a model (GGUF)", "Add models on the page of base models; here, upload the rows to train on."),
    (0, b"\x93NUMPY", "a NumPy array", _SAFE),
    (0, b"\x89HDF\r\n", "an HDF5 file", _SAFE),
    (0, b"\x7fELF", "a program", _SAFE),
    (0, b"MZ\x90\x00", "a program", _SAFE),
)
_ZIPS: tuple[tuple[bytes, str, str], ...] = (
    (b"xl/", "an Excel workbook (.xlsx)", _AS_CSV),
    (b"opendocument.spreadsheet", "an OpenDocument spreadsheet (.ods)", _AS_CSV),
    (b"opendocument.text", "an OpenDocument text (.odt)", _TEXT),
    (b"word/", "a Word document (.docx)", _TEXT),
    (b"data.pkl", "a PyTorch file (pickle)", _SAFE),
)
_PICKLE = re.compile(rb"\x80[\x02-\x05](?:\x95|[}\](ccq])", re.DOTALL)
_MARKUP = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:(!doctype\s+html|html\b|head\b)|(\?xml\b))", re.IGNORECASE)
_LFS = b"version https://git-lfs.github.com/spec/"


class _Gzip(io.RawIOBase):
    """Unpacks gzip as it is read. Raises `UserError` past the limits, and where the stream is broken."""

    def __init__(self, path: Path, packed: BinaryIO, limits: Limits) -> None:
        self._path, self._packed, self._limits = path, packed, limits
        self._file = gzip.GzipFile(fileobj=packed)
        self._out = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        """Fills `buffer`; counts what went in and what came out."""
        try:
            chunk = self._file.read(len(buffer))
        except (EOFError, OSError, zlib.error) as failure:
            reason = "it ends in the middle" if isinstance(failure, EOFError) else "its checksum or its blocks are wrong"
            raise UserError("file_damaged", what="gzip", reason=reason, where={"file": str(self._path)}) from None
        buffer[: len(chunk)] = chunk
        self._out += len(chunk)
        limits, where = self._limits, {"file": str(self._path)}
        if self._out > limits.gzip_ratio_from_bytes and self._out > limits.gzip_ratio * self._packed.tell():
            raise UserError("file_ratio", limit=limits.gzip_ratio, where=where)
        if self._out > limits.unpacked_bytes:
            raise UserError("file_too_large", limit=size_words(limits.unpacked_bytes), where=where)
        return len(chunk)


def size_words(count: int) -> str:
    """A size for people: 16 GiB, 10 MiB, 900 bytes."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"


@contextmanager
def open_bytes(path: Path, limits: Limits) -> Iterator[IO[bytes]]:
    """The file's bytes from the start, unpacked where they are gzip."""
    with path.open("rb") as raw:
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        raw.seek(0)
        yield io.BufferedReader(_Gzip(path, raw, limits), CHUNK_BYTES) if packed else raw


def is_gzip(path: Path) -> bool:
    """Whether the file is packed with gzip, by its first bytes."""
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def read_head(path: Path, limits: Limits) -> bytes:
    """The first `HEAD_BYTES` bytes, unpacked. Raises `UserError` where the file is missing, empty or of a kind that holds no text."""
    where = {"file": str(path)}
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        raise UserError("file_missing", path=path, where=where) from None
    if size == 0:
        raise UserError("file_empty", where=where)
    packed = is_gzip(path)
    with open_bytes(path, limits) as file:
        head = file.read(HEAD_BYTES)
    if packed and head.startswith((PARQUET_MAGIC, GZIP_MAGIC)):
        inner = "a Parquet file" if head.startswith(PARQUET_MAGIC) else "a gzip file"
        raise UserError("file_foreign", what=f"{inner} packed with gzip once more", remedy="Unpack it once, and upload that.", where=where)
    if not head.lstrip(b"\xef\xbb\xbf").strip():
        raise UserError("file_empty", where=where)
    _refuse_foreign(head, where)
    return head


def _refuse_foreign(head: bytes, where: dict[str, str]) -> None:
    def refuse(what: str, remedy: str) -> None:
        raise UserError("file_foreign", what=what, remedy=remedy, where=where)

    for offset, magic, what, remedy in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            refuse(what, remedy)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        for sign, what, remedy in _ZIPS:
            if sign in head:
                refuse(what, remedy)
        refuse("a zip archive", _UNPACK)
    if _PICKLE.match(head):
        refuse("a Python pickle", _SAFE)
    if head.startswith(_LFS):
        refuse(
            "a Git LFS pointer: a note of three lines that stands in for the real file",
            "Fetch the real file (git lfs pull, or “Download” on the file's page), and upload that.",
        )
    markup = _MARKUP.match(head)
    if markup:
        refuse("a web page (HTML)" if markup[1] else "an XML document", _AGAIN if markup[1] else _AS_CSV)
