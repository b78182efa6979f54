"""Which rows of a micro-batch begin alike, so that what they share is computed once and attended to by all of them.

The idea of prompt trees and of Prefix Grouper (arXiv:2506.05433): a causal model's states of a common prefix do not depend on what
follows, and its gradient is the sum over the rows. One level: rows of one template form a group with one prefix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jobs.data.encoding import Encoded

# A shorter prefix saves less than its handling costs.
SHORTEST_PREFIX = 4
# Rows among which the best grouping is looked for (the search is quadratic); more are grouped in parts of this size.
SEARCHED_ROWS = 128


@dataclass(frozen=True)
class Group:
    """Rows (numbers in the micro-batch, shortest first) whose first `prefix` tokens are the same; 0 where nothing is shared."""

    rows: tuple[int, ...]
    prefix: int


def group_rows(rows: Sequence[Encoded]) -> list[Group]:
    """The grouping that leaves the fewest tokens to compute, every row in one group.

    A prefix ends before the last token ahead of the first trained one of each row: what predicts a label stays the row's own.
    """
    order = sorted(range(len(rows)), key=lambda place: rows[place].ids.tolist())
    groups: list[Group] = []
    for start in range(0, len(order), SEARCHED_ROWS):
        groups += _best_groups(rows, order[start : start + SEARCHED_ROWS])
    return groups


def _best_groups(rows: Sequence[Encoded], order: Sequence[int]) -> list[Group]:
    """Dynamic programme over the rows in lexical order, in which rows that begin alike stand together."""
    limits = [_shareable(rows[place]) for place in order]
    common = [_common(rows[left], rows[right]) for left, right in pairwise(order)]
    saved, cut = [0] * (len(order) + 1), [0] * (len(order) + 1)
    for end in range(1, len(order) + 1):
        saved[end], cut[end] = saved[end - 1], end - 1
        shared = limits[end - 1]
        for start in range(end - 2, -1, -1):
            shared = min(shared, common[start], limits[start])
            if shared < SHORTEST_PREFIX:
                break
            if (gain := saved[start] + shared * (end - start - 1)) > saved[end]:
                saved[end], cut[end] = gain, start
    groups = []
    end = len(order)
    while end:
        start = cut[end]
        members = sorted(order[start:end], key=lambda place: len(rows[place].ids))
        prefix = min([*limits[start:end], *common[start : end - 1]]) if end - start > 1 else 0
        groups.append(Group(tuple(members), prefix))
        end = start
    return _alone_together(rows, groups[::-1])


def _alone_together(rows: Sequence[Encoded], groups: list[Group]) -> list[Group]:
    """The rows that share nothing, as one group, so that those of like length can be computed together."""
    alone = sorted((place for group in groups if not group.prefix for place in group.rows), key=lambda place: len(rows[place].ids))
    return [group for group in groups if group.prefix] + ([Group(tuple(alone), 0)] if alone else [])


def _shareable(row: Encoded) -> int:
    """How many first tokens may be computed elsewhere."""
    return int(np.argmax(row.trained)) - 1 if row.trained.any() else len(row.ids) - 1


def _common(left: Encoded, right: Encoded) -> int:
    """How many tokens two rows begin with alike."""
    length = min(len(left.ids), len(right.ids))
    different = left.ids[:length] != right.ids[:length]
    return int(np.argmax(different)) if different.any() else length
