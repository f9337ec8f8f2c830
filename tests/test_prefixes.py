"""Trees of token sequences: every sequence can be read back, and what several begin with stands there once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from armorm.features.prefixes import LEAST, Tree, common_start, part_of, place_of, plant

STARTS = [tuple(range(a, a + 40)) for a in (0, 100)]
sequences = st.lists(
    st.builds(
        lambda start, kept, tail: (*start[:kept], *tail),
        st.sampled_from(STARTS),
        st.integers(1, 40),
        st.lists(st.integers(0, 2), max_size=20).map(tuple),
    ),
    min_size=1,
    max_size=12,
)


def spelt(tree: Tree, path) -> tuple[int, ...]:
    return tuple(tree.ids[i] for piece in path for i in piece)


@given(sequences, st.booleans())
def test_every_sequence_reads_back_in_its_own_places(rows, share):
    tree = plant(rows, share=share)
    assert len(tree.ids) == len(tree.positions) == sum(map(len, tree.branches))
    for row, path in zip(rows, tree.paths, strict=True):
        assert spelt(tree, path) == row
        assert [tree.positions[i] for piece in path for i in piece] == list(range(len(row)))
        assert place_of(path, len(row) - 1) == path[-1][-1]
        assert spelt(tree, part_of(path, 2, len(row) - 1)) == row[2 : len(row) - 1]


@given(sequences)
def test_a_branch_stands_behind_those_it_follows(rows):
    # What attention relies on: going from left to right, a branch overwrites nothing that a later one follows.
    tree = plant(rows)
    kept: list[int] = []
    ends = {path[-1].stop: path for path in tree.paths}
    for branch in tree.branches:
        del kept[branch.before :]
        assert len(kept) == branch.before
        kept += range(branch.start, branch.stop)
        if branch.stop in ends:
            assert kept == [i for piece in ends[branch.stop] for i in piece]


def test_a_shared_start_stands_there_once():
    start = tuple(range(LEAST))
    rows = [(*start, 90, 91), (*start, 80), (*start, 80), start, (70, 71)]
    tree = plant(rows)
    assert len(tree.ids) == LEAST + 2 + 1 + 2
    assert tree.paths[1] == tree.paths[2]
    assert len(plant(rows, share=False).ids) == sum(map(len, rows))


def test_a_start_of_few_tokens_is_read_for_each():
    start = tuple(range(LEAST - 1))
    assert len(plant([(*start, 90), (*start, 80)]).ids) == 2 * LEAST


def test_many_sequences_that_each_begin_with_the_one_before():
    rows = [tuple(range(LEAST * n)) for n in range(1, 1500, 7)]
    tree = plant(rows)
    assert tree.ids == rows[-1]
    assert [spelt(tree, path) for path in tree.paths[:5]] == rows[:5]


@pytest.mark.parametrize(("a", "b", "same"), [((), (1,), 0), ((1, 2), (1, 2), 2), ((1, 2), (1, 2, 3), 2), ((1, 2), (1, 3), 1)])
def test_common_start(a, b, same):
    assert common_start(a, b) == common_start(b, a) == same


def test_a_place_behind_the_path_is_refused():
    with pytest.raises(IndexError):
        place_of((range(3),), 3)
