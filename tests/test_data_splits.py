from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.conversation import prompt_group
from armorm.data.rows import PreferencePair, RatedResponse
from armorm.data.splits import Split, components, folds_of, group_code, group_name, split_of
from armorm.data.stored_rows import RowFolder
from armorm.data.summary import SourceFacts, summarise
from armorm.errors import DataError
from armorm.objectives import Objective, Objectives

GROUPS = [f"g{i}" for i in range(4000)]


def turn(text, role="user"):
    return {"role": role, "content": text}


def rated(i, prompt, group=None, **ratings):
    messages = (turn(prompt), turn(f"answer {i}", "assistant"))
    return RatedResponse(f"r{i}", group or prompt_group(messages), "ratings", messages, ratings)


def pair(i, prompt, group=None):
    context = (turn(prompt),)
    return PreferencePair(f"p{i}", group or prompt_group(context), "pairs", context, "good", "bad")


def test_a_prompt_stands_on_one_side_across_files_and_kinds_of_rows():
    prompts = [f"Question {i}?" for i in range(300)]
    a = [rated(i, p) for i, p in enumerate(prompts)]
    b = [pair(i, f"  {p.upper()} ") for i, p in enumerate(prompts[::-1])]
    sides = [{r.group: split_of(r.group, seed=3, validation=0.2, test=0.2) for r in rows} for rows in (a, b)]
    assert sides[0] == sides[1]
    assert len(sides[0]) == 300
    assert set(sides[0].values()) == set(Split)


def test_proportions_are_near_the_fractions():
    counts = Counter(split_of(g, seed=0, validation=0.1, test=0.25) for g in GROUPS)
    for split, fraction in {Split.TRAIN: 0.65, Split.VALIDATION: 0.1, Split.TEST: 0.25}.items():
        assert counts[split] / len(GROUPS) == pytest.approx(fraction, abs=0.03)


def test_the_sides_are_the_same_on_every_machine():
    # The law that a run can be repeated: these were written down once.
    assert [split_of(g, seed=1, validation=0.3, test=0.3).value for g in GROUPS[:8]] == PINNED_SPLITS
    assert [folds_of(g, seed=1, folds=5) for g in GROUPS[:8]] == PINNED_FOLDS


def test_the_seed_moves_groups_and_the_validation_fraction_moves_no_test_group():
    sides = [
        {g for g in GROUPS if split_of(g, seed=s, validation=v, test=0.2) is Split.TEST}
        for s, v in ((0, 0.1), (1, 0.1), (0, 0.5))
    ]
    assert sides[0] == sides[2]
    assert len(sides[0] & sides[1]) / len(sides[0]) == pytest.approx(0.2, abs=0.05)


def test_folds_are_even_and_independent_of_the_split():
    test = [g for g in GROUPS if split_of(g, seed=0, validation=0.0, test=0.5) is Split.TEST]
    for groups in (GROUPS, test):
        counts = Counter(folds_of(g, seed=0, folds=4) for g in groups)
        assert sorted(counts) == [0, 1, 2, 3]
        assert all(c / len(groups) == pytest.approx(0.25, abs=0.04) for c in counts.values())


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.1), (0.5, 0.5), (0.1, float("nan"))])
def test_fractions_that_leave_nothing_to_train_on_are_refused(validation, test):
    with pytest.raises(DataError, match="below 1"):
        split_of("g", seed=0, validation=validation, test=test)


def test_one_fold_is_refused():
    with pytest.raises(DataError, match="at least 2"):
        folds_of("g", seed=0, folds=1)


def named(prompts, given):
    """Groups named by one letter, as the numbers that stand for them."""
    numbers = (np.array([ord(g) if g else 0 for g in groups], np.uint64) for groups in (prompts, given))
    return list(map(chr, components(*numbers).tolist()))


def test_components_join_what_shares_a_prompt_or_a_given_group():
    prompts = ["d", "b", "b", "a", "e", "c"]
    columns = ["1", "1", "2", "2", None, "3"]
    assert named(prompts, columns) == ["a", "a", "a", "a", "e", "c"]
    assert named(prompts, [None] * 6) == prompts
    assert named([], []) == []


LINKS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.none() | st.sampled_from("12345")), min_size=1, max_size=25)


@settings(deadline=None)
@given(LINKS, st.randoms(use_true_random=False))
def test_components_equal_a_plain_flood_and_ignore_the_order(links, random):
    names = named([p for p, _ in links], [g for _, g in links])
    for (prompt, _), name in zip(links, names, strict=True):
        reached = {prompt}
        while more := {p for p, g in links if g is not None and any(q in reached and h == g for q, h in links)} - reached:
            reached |= more
        assert name == min(reached)
    order = list(range(len(links)))
    random.shuffle(order)
    assert named([links[i][0] for i in order], [links[i][1] for i in order]) == [names[i] for i in order]


@given(st.lists(st.integers(0, 2**64 - 1), max_size=9))
def test_groups_and_their_numbers_stand_in_one_order(codes):
    names = list(map(group_name, codes))
    assert list(map(group_code, names)) == codes
    assert sorted(names) == list(map(group_name, sorted(codes)))


def test_rows_join_by_their_given_group_whatever_their_prompts():
    folder = RowFolder()
    rated_rows = folder.store("ratings", [rated(1, "one", "c:7"), rated(2, "three")])
    pairs = folder.store("pairs", [pair(1, "two", "c:7"), pair(2, "TWO")])
    columns = [rows.columns for rows in (rated_rows, pairs)]
    first, fourth, second, third = components(*(np.concatenate([getattr(c, n) for c in columns]) for n in ("prompts", "given")))
    assert group_name(int(first)) == min(prompt_group([turn("one")]), prompt_group([turn("two")]))
    assert first == second == third
    assert group_name(int(fourth)) == prompt_group([turn("three")])


def test_benchmark_prompts_are_kept_out_even_under_a_given_group():
    rows = [rated(1, "one", "c:7"), rated(2, "two"), rated(3, "three", "c:8")]
    stored = RowFolder().store("ratings", rows).grouped(np.array([7, 2, 8], np.uint64))
    kept = stored.without(np.array([group_code(prompt_group([turn("ONE")])), 8], np.uint64))
    assert [row.id for row in kept] == ["r2"]


def test_the_summary_counts_labels_by_source_and_bins_raw_ratings():
    objectives = Objectives([Objective(name="a", min=1, max=5, rater="human"), Objective(name="b", min=0, max=1)])
    rows = [rated(1, "one", a=1.0), rated(2, "one", a=5.0), rated(3, "two", a=5.0)]
    sources = [
        SourceFacts("s", "ratings", 5, rows, {"no-rating": 2}, {"rating-na": 1}, truncated=1),
        SourceFacts("t", "pairs", 1, [pair(1, "x")]),
    ]
    data = summarise(sources, objectives, {"ratings": {"train": 3}}).to_json()
    assert data["sources"][0] == {
        "name": "s", "kind": "ratings", "rows": 5, "kept": 3, "groups": 2,
        "drops": {"no-rating": 2}, "notes": {"rating-na": 1}, "truncated": 1,
    }  # fmt: skip
    assert data["labels"] == {"sources": ["s"], "objectives": ["a", "b"], "counts": [[3, 0]]}
    a, b = data["objectives"]
    assert (a["n"], a["mean"], a["rater"]) == (3, pytest.approx(11 / 3), "human")
    assert (a["histogram"]["counts"][0], a["histogram"]["counts"][-1], sum(a["histogram"]["counts"])) == (1, 2, 3)
    assert (a["histogram"]["edges"][0], a["histogram"]["edges"][-1]) == (1, 5)
    assert (b["n"], b["mean"], sum(b["histogram"]["counts"])) == (0, None, 0)
    assert data["splits"] == {"ratings": {"train": 3}}


PINNED_SPLITS = ["test", "validation", "train", "train", "train", "test", "train", "train"]
PINNED_FOLDS = [2, 4, 1, 1, 0, 0, 2, 3]
