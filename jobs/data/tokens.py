"""Rows of tokens: one row; a whole file of them in flat arrays, in memory or mapped from disk; and a choice of them cut to a length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

LENGTH_CAP = 4096
LENGTH_MULTIPLE = 64
# Where a row's first trained token stands when it has none: beyond every limit.
NEVER = np.iinfo(np.int32).max


class Row(Protocol):
    """What a training asks of a row of any task."""

    @property
    def ids(self) -> NDArray[np.int32]:
        """int32 [length]: its tokens."""

    @property
    def labels(self) -> int:
        """By how much the row counts in the mean of the loss."""

    @property
    def content(self) -> bytes:
        """All that the model is taught by it, to tell rows apart."""


@dataclass(frozen=True)
class Encoded:
    """One row: `ids` int32 [length], `trained` bool [length] (the first token never is: nothing precedes it)."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]

    @property
    def labels(self) -> int:
        """How many tokens are trained on."""
        return int(np.count_nonzero(self.trained))

    @property
    def content(self) -> bytes:
        """Tokens and marks."""
        return self.ids.tobytes() + self.trained.tobytes()


@dataclass(frozen=True)
class TokenStore:
    """All rows of a file, uncut, end to end: row i is `ids[offsets[i]:offsets[i + 1]]`.

    `ids` uint16 or int32 [tokens], `trained` bool [tokens], `offsets` int64 [rows + 1]; of each row `first` int32 [rows], the place of its
    first trained token (`NEVER` where there is none), and `labels` int32 [rows], how many it has. `chats`: any row came from a chat.
    """

    ids: NDArray[Any]
    trained: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    first: NDArray[np.int32]
    labels: NDArray[np.int32]
    chats: bool = False

    def __len__(self) -> int:
        return len(self.first)

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> TokenStore:
        """The same rows in memory."""
        columns = Columns.of(rows)
        return cls(columns.ids, columns.trained, np.concatenate([[0], np.cumsum(columns.lengths)]), columns.first, columns.labels)

    def row(self, index: int, limit: int) -> Encoded:
        """A row's first `limit` tokens. The marks are a view; so are the ids where they are stored as int32."""
        start = int(self.offsets[index])
        end = min(int(self.offsets[index + 1]), start + limit)
        return Encoded(self.ids[start:end].astype(np.int32, copy=False), self.trained[start:end])


@dataclass(frozen=True)
class Columns:
    """Some rows as the arrays of a `TokenStore`, with `lengths` int64 [rows] in place of offsets."""

    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]
    lengths: NDArray[np.int64]
    first: NDArray[np.int32]
    labels: NDArray[np.int32]

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> Columns:
        """Lays rows end to end."""
        first = [int(row.trained.argmax()) if row.trained.any() else NEVER for row in rows]
        return cls(
            ids=np.concatenate([np.empty(0, np.int32), *(row.ids for row in rows)]),
            trained=np.concatenate([np.empty(0, np.bool_), *(row.trained for row in rows)]),
            lengths=np.array([len(row.ids) for row in rows], dtype=np.int64),
            first=np.array(first, dtype=np.int32),
            labels=np.array([np.count_nonzero(row.trained) for row in rows], dtype=np.int32),
        )


class TokenRows(Sequence[Encoded]):
    """Rows of a store by number, none longer than `limit` tokens. A row is made when it is asked for: nothing is held but the numbers."""

    def __init__(self, store: TokenStore, numbers: NDArray[np.int64], limit: int) -> None:
        self._store, self._numbers, self._limit = store, numbers, limit

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> TokenRows: ...
    def __getitem__(self, index: int | slice) -> Encoded | TokenRows:
        if isinstance(index, slice):
            return TokenRows(self._store, self._numbers[index], self._limit)
        return self._store.row(int(self._numbers[index]), self._limit)


@dataclass(frozen=True)
class EncodedRows:
    """`rows[i]` comes from record number `indices[i]` of what was given (`Encoded` for writing); `cut` were cut to `max_length` tokens,
    `dropped` ones left no token to learn from. `tokens` and `label_tokens` are those of all rows together.
    """

    rows: Sequence[Any]
    indices: list[int]
    max_length: int
    cut: int
    dropped: int
    tokens: int
    label_tokens: int


def cut_rows(
    store: TokenStore, numbers: NDArray[np.int64] | None = None, *, max_length: int | None = None, length_limit: int = LENGTH_CAP
) -> EncodedRows:
    """The rows `numbers` of a store (all of them where None), shortened to `max_length` tokens, without those that keep none to learn from.

    `max_length` None means: the 99th percentile of the lengths, rounded up to a multiple of 64, at most `length_limit` (what the
    model's positions allow) and 4096.
    """
    numbers = np.arange(len(store)) if numbers is None else numbers
    lengths = np.diff(store.offsets)[numbers]
    limit = min(max_length or _natural_length(lengths), length_limit)
    kept = np.flatnonzero(store.first[numbers] < limit)
    long = lengths > limit
    labels = int(store.labels[numbers[kept[~long[kept]]]].sum(dtype=np.int64))
    labels += sum(int(np.count_nonzero(store.row(int(number), limit).trained)) for number in numbers[kept[long[kept]]])
    return EncodedRows(
        rows=TokenRows(store, numbers[kept], limit),
        indices=kept.tolist(),
        max_length=limit,
        cut=int(np.count_nonzero(long)),
        dropped=len(numbers) - len(kept),
        tokens=int(np.minimum(lengths, limit)[kept].sum()),
        label_tokens=labels,
    )


def _natural_length(lengths: NDArray[np.int64]) -> int:
    """The 99th percentile of the lengths, rounded up to `LENGTH_MULTIPLE`, at most `LENGTH_CAP`."""
    if not len(lengths):
        return LENGTH_MULTIPLE
    percentile = int(np.ceil(np.percentile(lengths, 99)))
    return min(LENGTH_CAP, -(-percentile // LENGTH_MULTIPLE) * LENGTH_MULTIPLE)
