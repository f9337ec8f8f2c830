"""Pairs made of rated sets: which answer is preferred, and what is left out."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_sources_ratings import (
    CAPYBARA,
    CODE,
    PLAIN,
    ULTRAFEEDBACK,
    coded,
    compared,
    completion,
    counts,
    prompted,
    records_near,
    steered,
    sums,
    turns,
    write,
)

from armorm.conversation import fault_in
from armorm.data.files import BadRecord, Record, Skipped
from armorm.data.reading import stream_pairs
from armorm.data.sources.read import source_pairs
from armorm.data.sources.registry import pair_source, rating_source

MINE = ("helpsteer", "ultrafeedback", "code-ultrafeedback", "capybara", "argilla-math")


def read(name, folder):
    return source_pairs(pair_source(name), path=str(folder)).read()


def said(row):
    return "|".join(m["content"] for m in row.context), row.chosen, row.rejected


def helpful(prompt, response, value):
    return steered(prompt, response, value, 4, 4, 4, 4)


def test_helpsteer_pairs_are_of_neighbours_with_one_prompt(tmp_path):
    rows = [
        helpful("A?", "a1", 1),
        helpful("A?", "a3", "3"),
        helpful("A?", "also 3", 3),
        helpful("A?", "unrated", None),
        helpful("B?", "alone", 4),
        helpful("C?", "c0", 0),
        {**helpful("C?", "", 1), "response": None},
        helpful("C?", "c4", 4),
        helpful("A?", "a2", 2),
        helpful("A?", "a0", 0),
        helpful("D?", "five", 5),
        helpful("D?", "word", "good"),
        helpful("D?", "fine", 2),
    ]
    found = read("helpsteer", write(tmp_path, "train.jsonl.gz", rows))
    assert [said(r) for r in found.rows] == [
        ("A?", "a3", "a1"),
        ("A?", "also 3", "a1"),
        ("C?", "c4", "c0"),
        ("A?", "a2", "a0"),
    ]
    assert counts(found) == (
        {"missing-field": 1, "rating-off-scale": 2, "rating-not-a-number": 1},
        {"tie": 1, "unrated": 3, "single-answer": 1},
        {"prompt-apart": 1},
    )
    assert [r.id for r in found.rows] == ["helpsteer-1-2-1", "helpsteer-1-3-1", "helpsteer-6-8-6", "helpsteer-9-9-10"]


def test_helpsteer_pairs_weigh_correctness_like_helpfulness(tmp_path):
    rows = [
        steered("E?", "helpful", 3, 0, 4, 4, 4),
        steered("E?", "correct", 2, 4, 0, 0, 0),
        steered("E?", "even", 3, 3, 0, 0, 0),
    ]
    found = read("helpsteer", write(tmp_path, "train.jsonl", rows))
    assert [said(r) for r in found.rows] == [("E?", "correct", "helpful"), ("E?", "even", "helpful")]
    assert counts(found)[1] == {"tie": 1}


def test_helpsteer_pairs_hold_one_prompt_at_a_time():
    # What comes out does not wait for the end of the file: the first pair is there when the second prompt begins.
    taken = []

    def rows():
        for i in range(100):
            taken.append(i)
            yield Record(i + 1, helpful(f"{i // 2}?", f"{i}", i % 2), "f.jsonl")

    first = next(iter(pair_source("helpsteer").unfold(rows())))
    assert first.values == {"prompt": "0?", "chosen": "1", "rejected": "0"}
    assert len(taken) == 3


def test_helpsteer_pairs_pass_on_what_was_found_before():
    found = [BadRecord(1, "not-json", "mend it", "f"), Record(2, helpful("A?", "1", 1), "f"), Skipped(3, "why", "f")]
    out = list(pair_source("helpsteer").unfold([*found, Record(4, helpful("A?", "2", 2), "f")]))
    assert {type(o) for o in out} == {Record, BadRecord, Skipped}
    assert found[0] in out
    assert found[2] in out
    assert len(out) == 3


@pytest.mark.parametrize("name", ["evol_instruct.jsonl", "data.parquet"])
def test_ultrafeedback_pairs_are_by_the_mean_of_the_rated_aspects(tmp_path, name):
    # Means: A 4.25, B 3, C 5, D 4.33; bug 2, 85/100 4, nought 1, no score 3; only aspects 2.25; w–z 4.5 each.
    found = read("ultrafeedback", write(tmp_path, name, ULTRAFEEDBACK))
    assert [said(r) for r in found.rows] == [
        *(("Plain?", *pair) for pair in ("AB", "CA", "DA", "CB", "DB", "CD")),
        ("Odd?", "85/100", "bug"),
        ("Odd?", "bug", "nought"),
        ("Odd?", "no score", "bug"),
        ("Odd?", "85/100", "nought"),
        ("Odd?", "85/100", "no score"),
        ("Odd?", "no score", "nought"),
    ]
    assert counts(found) == ({}, {"tie": 6, "unrated": 1, "no-answers": 1}, {})


def test_ultrafeedback_pairs_do_not_trust_the_stored_mean_nor_the_overall_score(tmp_path):
    high, low = completion("high", "5555", 1.0), completion("low", "1111", 10.0)
    rows = [prompted("Q?", {**high, "fine-grained_score": 1.0}, {**low, "fine-grained_score": 5.0}, source="truthful_qa")]
    found = read("ultrafeedback", write(tmp_path, "truthful_qa.jsonl", rows))
    assert [said(r) for r in found.rows] == [("Q?", "high", "low")]
    assert counts(found) == ({}, {}, {"fewer-than-four": 1, "truthful-qa": 1})


def test_ultrafeedback_means_of_different_aspects_tie_exactly(tmp_path):
    thirds = completion("thirds", ("N/A", "4", "4", "5"))
    same = completion("same", ("4", "N/A", "5", "4"))
    rows = [prompted("Q?", thirds, same, completion("four", "4444"), completion("also four", ("4", None, None, "N/A")))]
    found = read("ultrafeedback", write(tmp_path, "flan.jsonl", rows))
    assert [said(r)[1:] for r in found.rows] == [
        ("thirds", "four"),
        ("thirds", "also four"),
        ("same", "four"),
        ("same", "also four"),
    ]
    assert counts(found) == ({}, {"tie": 2}, {})


def test_ultrafeedback_answers_that_cannot_be_read_leave_the_others_paired(tmp_path):
    rows = [
        prompted("Q?", completion("a", "5555"), "no object", completion("b", "3333"), completion("off", "3336")),
        prompted("Same?", completion("a", "5555"), completion("a", "4444")),
        prompted("One?", completion("a", "5555"), None),
        {"instruction": "No list?", "completions": "a"},
    ]
    found = read("ultrafeedback", write(tmp_path, "flan.jsonl", rows))
    assert [said(r) for r in found.rows] == [("Q?", "a", "b")]
    assert counts(found) == (
        {"missing-field": 3, "rating-off-scale": 2, "chosen-equals-rejected": 1},
        {"single-answer": 1},
        {"fewer-than-four": 1},
    )


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "train.jsonl"])
def test_code_ultrafeedback_pairs_compare_numbers(tmp_path, name):
    rows = [*CODE, coded("Ten.", "style", {"a": "two", "b": "five"}, {"b": " 5", "a": "2.0"})]
    found = read("code-ultrafeedback", write(tmp_path, name, rows))
    assert [said(r) for r in found.rows] == [("Sort.", "B", "A"), ("Sort.", "C", "A"), ("Ten.", "five", "two")]
    assert counts(found) == ({}, {"tie": 1, "unrated": 5}, {})


def test_code_ultrafeedback_pairs_of_faulty_records(tmp_path):
    rows = [
        coded("What?", "beauty", {"a": "A", "b": "B"}, {"a": "1", "b": "2"}),
        coded("Orphan.", "style", {"a": "A", "b": "B"}, {"a": "1", "b": "2", "z": "4"}),
        coded("Off.", "style", {"a": "A", "b": "B"}, {"a": "1", "b": "9"}),
    ]
    found = read("code-ultrafeedback", write(tmp_path, "train.jsonl", rows))
    assert [said(r) for r in found.rows] == [("Orphan.", "B", "A")]
    assert counts(found) == ({"unknown-preference": 1, "missing-field": 1, "rating-off-scale": 1}, {}, {})


@pytest.mark.parametrize("name", ["data/train-00000-of-00001.parquet", "train.jsonl"])
def test_capybara_pairs_stand_where_the_ratings_support_them(tmp_path, name):
    rows = [
        *CAPYBARA,
        compared(turns("T", "good"), turns("T", "bad"), 4, 4),
        compared(turns("R", "good"), turns("R", "bad"), 2, 4),
        compared(turns("E", "good"), turns("F", "bad"), 5, 4),
        compared(turns("O", "good"), turns("O", "bad"), 7, 4),
        compared(turns("N", "good"), None, 5, 4),
    ]
    found = read("capybara", write(tmp_path, name, rows))
    assert [said(r) for r in found.rows] == [("A|B|C", "good", "bad")]
    assert counts(found) == (
        {"different-contexts": 1, "rating-off-scale": 1, "missing-field": 1},
        {"unrated": 1, "tie": 1, "reversed": 1},
        {},
    )


def test_argilla_math_pairs_stand_where_the_ratings_support_them(tmp_path):
    rows = [
        sums("2+2?", "4", "5", 5.0, 1.0),
        sums("3+3?", "6", "7", "N/A", 2),
        sums("4+4?", "8", "9", 4, 4),
        sums("5+5?", "10", "11", 2, 3.5),
        sums("6+6?", "12", None, 5, 1),
    ]
    found = read("argilla-math", write(tmp_path, "data/train-0.jsonl", rows))
    assert [said(r) for r in found.rows] == [("2+2?", "4", "5")]
    assert counts(found) == ({"missing-field": 1}, {"unrated": 1, "tie": 1, "reversed": 1}, {})


@pytest.mark.parametrize("name", MINE)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_a_record_holds_is_a_pair_or_counted(name, data):
    records = records_near(data, PLAIN[name])
    source = pair_source(name)
    stream = stream_pairs(source.unfold(records), source=name, where="f", repeats=source.repeats)
    rows = list(stream)
    assert len(rows) + sum(stream.faults.drops.values()) == stream.total > 0
    for row in rows:
        assert fault_in(row.conversation(row.chosen)) is None
        assert fault_in(row.conversation(row.rejected)) is None


@pytest.mark.parametrize("name", MINE)
def test_the_facts_of_a_pair_source_agree_with_the_ratings_source(name):
    pairs, ratings = pair_source(name), rating_source(name)
    assert (pairs.place, pairs.licence, pairs.rows) == (ratings.place, ratings.licence, ratings.rows)
    assert pairs.made
