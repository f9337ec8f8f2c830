"""Published results: the aggregation reproduces them to the published decimals."""

from __future__ import annotations

import math

import pytest

from armorm.bench.aggregate import aggregate_values
from armorm.bench.published import RELEASED, TABLE_1, published
from armorm.data.benchmarks.registry import benchmark, benchmarks
from armorm.errors import DataError

SECTIONS = ("Chat", "Chat Hard", "Safety", "Reasoning", "Prior Sets")


def per_cent(values):
    return {name: round(100 * value, 1) for name, value in values.items()}


def released(name="rewardbench-prior"):
    (row,) = (row for row in published(name) if row.label == RELEASED)
    return row


def aggregate(name, kind):
    return next(a for a in benchmark(name).aggregates if a.name == kind)


def test_the_released_models_sections_and_score_are_reproduced():
    row = released()
    assert len(row.subsets) == 27
    sections, overall = aggregate_values(row.subsets, aggregate("rewardbench-prior", "swapped-xstest"))
    assert per_cent(sections) == {"Chat": 96.9, "Chat Hard": 76.8, "Safety": 92.2, "Reasoning": 97.3, "Prior Sets": 74.3}
    assert round(100 * overall, 1) == 89.0
    (paper,) = (r for r in published("rewardbench-prior") if r.label == "ArmoRM + MoE")
    assert per_cent(sections) == per_cent(paper.sections)
    assert round(100 * overall, 1) == round(100 * paper.overall, 1)


def test_the_right_sizes_give_another_safety_score():
    sections, overall = aggregate_values(released().subsets, aggregate("rewardbench-prior", "official"))
    assert per_cent(sections) == {"Chat": 96.9, "Chat Hard": 76.8, "Safety": 90.5, "Reasoning": 97.3, "Prior Sets": 74.3}
    assert round(100 * overall, 1) == 88.6
    assert released().sections == sections
    assert released().overall == overall


def test_table_1_is_consistent_with_its_own_weights():
    rows = [row for row in published("rewardbench-prior") if row.source == TABLE_1]
    assert len(rows) == 8
    for row in rows:
        assert tuple(row.sections) == SECTIONS
        weighted = (sum(row.sections[s] for s in SECTIONS[:4]) + row.sections["Prior Sets"] / 2) / 4.5
        assert row.overall == pytest.approx(weighted, abs=0.0011)  # rounded inputs


def test_without_prior_sets_the_rows_are_cut_to_four_sections():
    rows = published("rewardbench")
    assert len(rows) == 9
    for row in rows:
        assert tuple(row.sections) == SECTIONS[:4]
        assert row.overall == pytest.approx(sum(row.sections.values()) / 4, abs=1e-4)
    assert len(released("rewardbench").subsets) == 23
    assert all(0 < v <= 1 for row in rows for v in (*row.sections.values(), *row.subsets.values(), row.overall))


def test_other_benchmarks_have_no_rows():
    assert {name for name in benchmarks() if published(name)} == {"rewardbench", "rewardbench-prior"}
    with pytest.raises(DataError, match="did you mean 'rewardbench'"):
        published("reward-bench")


def test_missing_subsets_are_left_out_of_published_means():
    subsets = {k: v for k, v in released().subsets.items() if not k.startswith("prior/")}
    sections, overall = aggregate_values(subsets | {"donotanswer": math.nan}, aggregate("rewardbench-prior", "official"))
    assert tuple(sections) == SECTIONS[:4]
    assert overall == pytest.approx(sum(sections.values()) / 4)
    assert math.isnan(aggregate_values({}, aggregate("rewardbench", "official"))[1])
    knowing = {"knowledge": 1.0, "reasoning": 0.0, "math": 0.0, "coding": 0.0}
    assert aggregate_values(knowing, aggregate("judgebench", "official"))[1] == pytest.approx(154 / 350)
