"""One door to every kind of file: `open_rows` recognises it by its content and streams its rows."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from jobs.data.files import PARQUET_MAGIC, is_gzip, read_head
from jobs.data.json_rows import JsonStream, holder, read_jsonl
from jobs.data.parquet import parquet_columns, read_parquet
from jobs.data.rows import Limits, Problem, Row, Unit
from jobs.data.table import NO_SEPARATOR, SEPARATORS, Dialect, find_table, read_table
from jobs.data.text import NAMES, TextFacts, decode_head, open_text, read_lines, scan_text
from jobs.errors import UserError

Kind = Literal["jsonl", "json", "csv", "parquet", "text"]
SUFFIXES: dict[str, Kind] = {
    "jsonl": "jsonl", "ndjson": "jsonl", "json": "json", "csv": "csv", "tsv": "csv", "tab": "csv", "parquet": "parquet", "pq": "parquet",
    "txt": "text", "md": "text", "text": "text",
}  # fmt: skip
HEAD_ROWS = 50
_JSON_START = re.compile(r'\s*(?:\{\s*(?:["}]|$)|\[\s*(?:[\[{"\]]|$|[-\d]))')


@dataclass
class Source:
    """A file recognised. Iterate it (as often as you like) for its rows and problems; `warnings` are about the file as a whole."""

    path: Path
    kind: Kind
    limits: Limits
    compressed: bool
    size: int
    text: TextFacts | None = None
    dialect: Dialect | None = None
    paragraphs: bool = False
    columns: tuple[str, ...] = ()
    warnings: list[Problem] = field(default_factory=list)

    @property
    def unit(self) -> Unit:
        """What the numbers of its rows count."""
        return "row" if self.kind in ("json", "parquet") else "line"

    def facts(self) -> dict[str, Any]:
        """What was recognised, for people and for JSON; what does not apply is null."""
        text, dialect = self.text, self.dialect
        return {
            "kind": self.kind,
            "bytes": self.size,
            "compressed": "gzip" if self.compressed else None,
            "encoding": NAMES[text.encoding] if text else None,
            "encoding_guessed": text.guessed if text else False,
            "newline": text.newline_name if text else None,
            "lines": text.lines if text else None,
            "separator": None if not dialect or dialect.separator == NO_SEPARATOR else SEPARATORS[dialect.separator],
            "header": dialect.header if dialect else None,
            "rows_are": ("paragraphs" if self.paragraphs else "lines") if self.kind == "text" else None,
            "columns": list(self.columns),
            "numbers_count": self.unit,
        }

    def __iter__(self) -> Iterator[Row | Problem]:
        """The rows in order. Raises `UserError` where the file cannot be followed further."""
        for count, item in enumerate(self._rows(), 1):
            if count > self.limits.rows:
                raise UserError("rows_too_many", limit=f"{self.limits.rows:,}", where={"file": str(self.path)})
            yield item

    def _rows(self) -> Iterator[Row | Problem]:
        if self.text is None:
            yield from read_parquet(self.path, self.limits)
            return
        with open_text(self.path, self.text, self.limits) as file:
            if self.kind == "jsonl":
                yield from read_jsonl(file, self.text, self.limits)
            elif self.kind == "json":
                yield from JsonStream(file, str(self.path), self.limits).rows()
            elif self.dialect is not None:
                yield from read_table(file, self.text, self.dialect, self.limits)
            else:
                yield from _read_plain(file, self.text, self.limits, paragraphs=self.paragraphs)


def open_rows(path: Path, limits: Limits | None = None, *, suffix: str = "") -> Source:
    """Recognises a file. `suffix` (as of `SUFFIXES`; else that of `path`) only decides where the content leaves a doubt.

    Raises `UserError` where the file is missing, empty, of another kind, damaged, or larger than allowed.
    """
    limits = limits or Limits()
    head = read_head(path, limits)
    size = path.stat().st_size
    hint = _hint(path, suffix)
    if head.startswith(PARQUET_MAGIC):
        return Source(path, "parquet", limits, False, size, columns=parquet_columns(path, limits))
    facts = scan_text(path, head, limits)
    text = decode_head(head, facts.encoding)
    whole = len(head) < 65_536
    compressed = is_gzip(path)
    source = Source(path, "text", limits, compressed, size, text=facts, warnings=list(facts.warnings))
    if hint in ("json", "jsonl") or (hint != "csv" and _JSON_START.match(text)):
        source.kind = _json_kind(text, hint)
        source.columns = _seen_columns(source)
        return source
    sure = hint == "csv"
    dialect = None if hint == "text" and not _tab_table(text) else find_table(text, whole=whole, sure=sure)
    if dialect is None:
        source.paragraphs = bool(re.search(r"\S[ \t]*\r?\n[ \t]*\r?\n\s*\S", text))
        source.columns = ("text",)
        return source
    if len(dialect.columns) > limits.columns:
        raise UserError("columns_too_many", found=len(dialect.columns), limit=limits.columns, where={"file": str(path)})
    source.kind, source.dialect, source.columns = "csv", dialect, dialect.columns
    source.warnings += dialect.warnings
    return source


def _hint(path: Path, suffix: str) -> Kind | None:
    name = suffix.lower().lstrip(".") or path.name.lower().removesuffix(".gz").rpartition(".")[2]
    return SUFFIXES.get(name)


def _json_kind(text: str, hint: Kind | None) -> Kind:
    """Whether each line is a row of its own: then the first line stands alone, and what follows it begins like it."""
    lines = [line for line in islice(io.StringIO(text), 1000) if line.strip()]
    if not lines:
        return hint or "jsonl"
    first = lines[0].strip()
    begins = lines[1].lstrip()[:1] if len(lines) > 1 else ""
    if first.startswith("{"):
        # The other lines decide, so that one broken line (the first one too) does not turn JSONL into something else.
        alike = sum(line.lstrip().startswith("{") for line in lines) * 2 > len(lines)
        if len(lines) == 1:
            return "json" if holder(first) else "jsonl"
        return "jsonl" if alike and len(first) > 1 and not first.endswith(("{", "[", "},")) else "json"
    if first.startswith("["):
        return "jsonl" if first.endswith("]") and begins == "[" else "json"
    return hint or "jsonl"


def _tab_table(text: str) -> bool:
    """A .txt file is a table only where its first line names known columns with tabs between them."""
    first = text.split("\n", 1)[0]
    return "\t" in first and find_table(first, whole=True, sure=False) is not None


def _seen_columns(source: Source) -> tuple[str, ...]:
    """The keys of the first rows, in the order of their first appearance. Raises `UserError` where a row has too many."""
    names: dict[str, None] = {}
    for item in islice(source, HEAD_ROWS):
        if isinstance(item, Row):
            names |= dict.fromkeys(item.value)
        if len(names) > source.limits.columns:
            where = {"file": str(source.path)}
            raise UserError("columns_too_many", found=len(names), limit=source.limits.columns, where=where)
    return tuple(names)


def _read_plain(file: io.TextIOWrapper, facts: TextFacts, limits: Limits, *, paragraphs: bool) -> Iterator[Row | Problem]:
    """Plain text: each line a row, or, where blank lines stand between, each paragraph; lines end with a line feed."""
    held: list[str] = []
    start = 0
    for number, line in read_lines(file, facts, limits):
        if isinstance(line, Problem):
            yield line
            continue
        body = line.rstrip("\r\n")
        if body.strip() and not held:
            start = number
        if body.strip():
            held.append(body)
        if held and (not paragraphs or not body.strip() or sum(map(len, held)) > limits.line_characters):
            yield Row(start, {"text": "\n".join(held)})
            held = []
    if held:
        yield Row(start, {"text": "\n".join(held)})
