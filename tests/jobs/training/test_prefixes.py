"""Which rows share a prefix: every row once, only what is truly common, never at a loss."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.data.encoding import Encoded
from jobs.training import prefixes
from jobs.training.batches import pack
from jobs.training.prefixes import SHORTEST_PREFIX, group_rows
from tests.jobs.training.reference import templated_rows

TEMPLATES = ([5] * 3, [7, 8, 9, 7, 8, 9], [7, 8, 9, 7, 8, 1, 2, 3, 4], list(range(10, 30)))


@st.composite
def rows(draw):
    """Rows of a template and some tokens of their own, of few kinds; the labels begin anywhere."""
    ids = draw(st.sampled_from(TEMPLATES)) + draw(st.lists(st.integers(0, 2), min_size=2, max_size=8))
    first = draw(st.integers(1, len(ids) - 1))
    return Encoded(np.array(ids, dtype=np.int32), np.arange(len(ids)) >= first)


batches = st.lists(rows(), min_size=1, max_size=12)


@settings(max_examples=200, deadline=None)
@given(batches)
def test_groups_hold_every_row_once_and_share_what_is_common(batch):
    groups = group_rows(batch)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(batch)))
    for group in groups:
        members = [batch[row] for row in group.rows]
        assert [len(row.ids) for row in members] == sorted(len(row.ids) for row in members)
        if not group.prefix:
            continue
        assert len(members) > 1
        assert group.prefix >= SHORTEST_PREFIX
        for row in members:
            assert row.ids[: group.prefix].tolist() == members[0].ids[: group.prefix].tolist()
            assert group.prefix <= int(np.argmax(row.trained)) - 1, "the state that predicts the first label is the row's own"
    assert sum(group.prefix == 0 for group in groups) <= 1


@settings(max_examples=100, deadline=None)
@given(batches)
def test_no_cut_in_lexical_order_saves_more(batch):
    """Against all ways of cutting the sorted rows into neighbours, up to eight of them."""
    batch = batch[:8]
    order = sorted(range(len(batch)), key=lambda place: batch[place].ids.tolist())

    def saved(members):
        if len(members) < 2:
            return 0
        shared = min(int(np.argmax(row.trained)) - 1 for row in members)
        while shared > 0 and len({tuple(row.ids[:shared].tolist()) for row in members}) > 1:
            shared -= 1
        return shared * (len(members) - 1) if shared >= SHORTEST_PREFIX else 0

    def best(cuts):
        borders = [0, *(place + 1 for place in range(len(order) - 1) if cuts >> place & 1), len(order)]
        return sum(saved([batch[row] for row in order[start:end]]) for start, end in pairwise(borders))

    found = sum(group.prefix * (len(group.rows) - 1) for group in group_rows(batch))
    assert found == max(best(cuts) for cuts in range(2 ** (len(order) - 1)))


@settings(max_examples=100, deadline=None)
@given(batches)
def test_a_packed_batch_gives_every_row_back(batch):
    """Prefix and own tokens of a row, put together, are the row, at its own positions; labels stand where they are predicted."""
    packed = pack(batch, share_prefix=True, grids=True)
    ids, positions = packed.input_ids[0].tolist(), packed.position_ids[0].tolist()
    found = []
    for segment in packed.segments:
        places = [*range(segment.prefix_start, segment.prefix_stop), *range(segment.start, segment.stop)]
        assert [positions[place] for place in places] == list(range(len(places)))
        found.append(tuple(ids[place] for place in places))
    given_rows = [tuple(row.ids.tolist()) for row in batch]
    assert not Counter(given_rows) - Counter(found)
    assert len(found) == len(batch) + sum(group.prefix > 0 for group in group_rows(batch))
    assert packed.tokens == sum(len(row) for row in given_rows) >= len(ids)
    assert packed.labels.tolist() == [int(token) for row in batch for token in row.ids[row.trained]]
    wanted = [int(row.ids[place - 1]) for row in batch for place in np.flatnonzero(row.trained)]
    assert [ids[place] for place in packed.label_rows.tolist()] == wanted
    queries = [place for block in packed.blocks for place in block.queries[block.real].tolist()]
    assert sorted(queries) == list(range(len(ids))), "every token stands in one block"


def test_two_templates_are_two_groups():
    groups = group_rows(templated_rows(10))
    assert sorted((len(group.rows), group.prefix) for group in groups) == [(5, 12), (5, 15)]


def test_many_rows_are_grouped_in_parts(monkeypatch):
    monkeypatch.setattr(prefixes, "SEARCHED_ROWS", 4)
    batch = templated_rows(10)
    groups = group_rows(batch)
    assert sorted(row for group in groups for row in group.rows) == list(range(10))
    assert pack(batch, share_prefix=True).input_ids.numel() < sum(len(row.ids) for row in batch)
