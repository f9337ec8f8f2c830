from __future__ import annotations

import csv
import gzip
import json
import math
import os
from collections import Counter
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armorm.conversation import fault_in, prompt_group
from armorm.data.files import Record, expand, records
from armorm.data.reading import cap_rows, stream_pairs, stream_ratings
from armorm.data.rows import RatedResponse
from armorm.data.shapes import Columns
from armorm.errors import DataError, ObjectiveMismatch
from armorm.objectives import Objective, Objectives

OBJECTIVES = Objectives(
    [
        Objective(name="help", min=1, max=5),
        Objective(name="safe", min=0, max=1, categories={"unsafe": 0, "safe": 1}),
    ]
)


def turns(*texts):
    return [{"role": ("user", "assistant")[i % 2], "content": t} for i, t in enumerate(texts)]


def rows_of(*values):
    return [Record(i, v, "some.jsonl") for i, v in enumerate(values, start=1)]


def ratings_of(*values, columns=Columns(), **more):  # noqa: B008
    return stream_ratings(rows_of(*values), source="s", objectives=OBJECTIVES, columns=columns, where="here").read(**more)


def pairs_of(*values, columns=Columns(), **more):  # noqa: B008
    return stream_pairs(rows_of(*values), source="s", columns=columns, where="here").read(**more)


GOOD = {"id": "g", "messages": turns("Hi?", " Hello. \n"), "help": 4}
GOOD_PAIR = {"id": "g", "chosen": turns("Hi?", "Hello."), "rejected": turns("Hi?", "No."), "section": "chat", "subset": "easy"}


def test_a_rated_row_keeps_its_texts_and_gets_the_group_of_its_prompt():
    (row,) = ratings_of({**GOOD, "group": "ignored", "other": 1}).rows
    assert row == RatedResponse("g", prompt_group(turns("hi?")), "s", tuple(turns("Hi?", " Hello. \n")), {"help": 4.0})


def test_the_three_ways_to_write_a_rated_row_are_equal():
    as_messages = {"messages": [{"role": "system", "content": "Be brief."}, *turns("A", "B", "C", "D")], "help": 4}
    as_text = {"messages": json.dumps(as_messages["messages"]), "help": 4}
    as_parts = {"prompt": turns("A", "B", "C"), "response": "D", "system": "Be brief.", "help": 4}
    rows = [ratings_of(v).rows for v in (as_messages, as_text, as_parts)]
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == 1


def test_an_empty_system_text_is_no_system_message():
    (row,) = ratings_of({"prompt": "A", "response": "B", "system": "", "help": 4}).rows
    assert row.messages == tuple(turns("A", "B"))


def test_the_ways_to_write_a_pair_are_equal():
    ways = [
        {"chosen": turns("A", "B", "C", "D"), "rejected": turns("A", "B", "C", "E")},
        {"prompt": turns("A", "B", "C"), "chosen": "D", "rejected": "E"},
        {"prompt": turns("A", "B", "C"), "chosen": turns("", "D")[1:], "rejected": turns("", "E")[1:]},
        {"prompt": "A", "chosen": turns("A", "B", "C", "D"), "rejected": turns("A", "B", "C", "E")},
    ]
    rows = [pairs_of(way).rows for way in ways]
    assert [(r[0].context, r[0].chosen, r[0].rejected) for r in rows] == [(tuple(turns("A", "B", "C")), "D", "E")] * 4
    assert all(r == rows[0] for r in rows)


def test_a_prompt_that_looks_like_json_stays_text():
    prompt = json.dumps(turns("A", "B", "C"))
    (row,) = pairs_of({"prompt": prompt, "chosen": "[1]", "rejected": "[2]"}).rows
    assert (row.context, row.chosen, row.rejected) == (tuple(turns(prompt)), "[1]", "[2]")


def test_section_and_subset_come_along():
    (row,) = pairs_of(GOOD_PAIR).rows
    assert (row.section, row.subset) == ("chat", "easy")


@pytest.mark.parametrize(
    ("value", "rating"),
    [(4, 4.0), (4.5, 4.5), ("4", 4.0), (" 4.5 ", 4.5), (True, 1.0), ("true", 1.0), (1, 1.0), (5, 5.0)],
)
def test_ratings_on_the_scale_are_kept(value, rating):
    assert ratings_of({**GOOD, "help": value}).rows[0].ratings == {"help": rating}


@pytest.mark.parametrize(("value", "rating"), [("safe", 1.0), ("unsafe", 0.0), (0, 0.0), ("1", 1.0)])
def test_categories_are_ratings(value, rating):
    assert ratings_of({**GOOD, "safe": value}).rows[0].ratings == {"help": 4.0, "safe": rating}


@pytest.mark.parametrize(
    ("value", "notes"), [(None, 0), ("", 0), (" ", 0), ("N/A", 1), ("n/a ", 1), (math.nan, 1), ("NaN", 1), ("null", 1)]
)
def test_absent_ratings_drop_no_row_and_only_not_available_is_noted(value, notes):
    read = ratings_of({**GOOD, "safe": value})
    assert read.rows[0].ratings == {"help": 4.0}
    assert (sum(read.faults.drops.values()), read.faults.notes.get("rating-na", 0)) == (0, notes)


RATED_FAULTS = {
    "no-rating": {**GOOD, "help": None},
    "rating-off-scale": {**GOOD, "help": 5.01},
    "rating-not-finite": {**GOOD, "help": math.inf},
    "rating-not-a-number": {**GOOD, "help": "good"},
    "missing-field": {"prompt": "A", "help": 4},
    "not-messages": {**GOOD, "messages": "Hi"},
    "empty-turn": {**GOOD, "messages": turns("Hi", " ")},
    "unknown-role": {**GOOD, "messages": [{"role": "robot", "content": "x"}]},
    "no-answer": {**GOOD, "messages": turns("Hi")},
    "not-alternating": {**GOOD, "messages": turns("Hi", "A", "B")[1:] + turns("x", "y")},
    "not-utf8": {**GOOD, "messages": turns("Hi", "\ud800")},
    "not-text": {**GOOD, "id": ["a"]},
}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *RATED_FAULTS.items(),
        ("rating-off-scale", {**GOOD, "help": 10**400}),
        ("rating-off-scale", {**GOOD, "help": 0}),
        ("rating-not-finite", {**GOOD, "help": "-inf"}),
        ("rating-not-a-number", {**GOOD, "help": [4]}),
        ("rating-not-a-number", {**GOOD, "safe": "maybe"}),
        ("not-utf8", {**GOOD, "id": "\ud800"}),
    ],
)
def test_a_faulty_rated_row_is_dropped_counted_and_named_with_its_place(name, values):
    read = ratings_of({**GOOD, "id": "first"}, values, {**GOOD, "id": "last"})
    assert [r.id for r in read.rows] == ["first", "last"]
    assert (read.total, read.faults.counts) == (3, {name: 1})
    (example,) = read.faults.examples
    assert example.startswith(f"some.jsonl:2: {name}")
    assert example.endswith(")")
    assert len(example.split(" (")[-1]) > 10  # the remedy


PAIR_FAULTS = {
    "missing-field": {"chosen": turns("A", "B")},
    "different-contexts": {"chosen": turns("A", "B"), "rejected": turns("a", "C")},
    "chosen-equals-rejected": {"chosen": turns("A", "B"), "rejected": turns("A", "B\n")},
    "not-messages": {"chosen": json.dumps(turns("A", "B")), "rejected": json.dumps(turns("A", "C"))},
    "no-answer": {"chosen": turns("A"), "rejected": turns("A", "B")},
    "empty-turn": {"prompt": "A", "chosen": "B", "rejected": ""},
    "unknown-role": {"prompt": [{"role": "human", "content": "A"}], "chosen": "B", "rejected": "C"},
    "not-alternating": {"prompt": turns("A")[:1] * 2, "chosen": "B", "rejected": "C"},
    "duplicate-id": GOOD_PAIR,
}


@pytest.mark.parametrize(("name", "values"), PAIR_FAULTS.items())
def test_a_faulty_pair_is_dropped_counted_and_named_with_its_place(name, values):
    read = pairs_of(GOOD_PAIR, values)
    assert (len(read.rows), read.total, read.faults.counts) == (1, 2, {name: 1})
    assert read.faults.examples[0].startswith(f"some.jsonl:2: {name}")


def test_rows_that_could_not_be_read_are_counted_with_the_others(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(GOOD) + "\n{\n" + json.dumps({**GOOD, "id": "h", "help": 9}) + "\n")
    read = stream_ratings(records(path), source="s", objectives=OBJECTIVES, where="here").read()
    assert read.faults.counts == {"not-json": 1, "rating-off-scale": 1}
    assert [e.split(" ")[0] for e in read.faults.examples] == [f"{path}:2:", f"{path}:3:"]


def test_the_examples_are_the_first_few_of_each_fault():
    read = ratings_of(*[{**GOOD, "help": 9}] * 10, {**GOOD, "help": "x"})
    assert [e.split(":")[1] for e in read.faults.examples] == ["1", "2", "3", "11"]


def test_failing_lists_the_first_twenty_faults_and_the_total():
    with pytest.raises(DataError) as error:
        ratings_of(*[{**GOOD, "help": 9}] * 30, {**GOOD, "help": 4}, on_fault="fail")
    text = str(error.value)
    assert text.startswith("here: 30 of 31 rows are faulty")
    assert text.count("some.jsonl:") == 20
    assert "some.jsonl:20: rating-off-scale" in text
    assert text.endswith("and 10 more")
    assert len(ratings_of(GOOD, on_fault="fail").rows) == 1


def test_rows_without_an_id_are_named_after_their_place():
    bare = {k: v for k, v in GOOD.items() if k != "id"}
    rows = [Record(r, bare, f) for r, f in ((2, "a"), (3, "a"), (2, "b"))]
    read = stream_ratings(rows, source="s", objectives=OBJECTIVES, where="here").read()
    assert [r.id for r in read.rows] == ["s-2", "s-3", "s-2-2"]


def test_a_named_group_column_overrides_the_prompt_where_it_is_filled():
    columns = Columns(group="topic")
    read = ratings_of({**GOOD, "id": 1, "topic": 7}, {**GOOD, "id": 2.0, "topic": 7.0}, {**GOOD, "id": 3}, columns=columns)
    assert [(r.id, r.group) for r in read.rows] == [("1", "c:7"), ("2", "c:7"), ("3", prompt_group(turns("hi?")))]


def test_columns_that_the_recipe_names_must_exist():
    with pytest.raises(DataError, match="no row has the column 'topci'"):
        ratings_of(GOOD, columns=Columns(group="topci"))
    with pytest.raises(DataError, match="no row has the column 'hlep'"):
        ratings_of(GOOD, columns=Columns(ratings={"safe": "help", "help": "hlep"}))
    with pytest.raises(ObjectiveMismatch, match="no objective 'hlep'"):
        ratings_of(GOOD, columns=Columns(ratings={"hlep": "help"}))


def test_a_rating_map_renames_columns_and_leaves_out_the_rest():
    columns = Columns(ratings={"safe": "score"}, messages="talk")
    (row,) = ratings_of({"talk": turns("A", "B"), "score": "safe", "help": 3}, columns=columns).rows
    assert row.ratings == {"safe": 1.0}


FORMAT_ROWS = [
    {"id": f"r{i}", "messages": turns(f"Frage {i}?", f'"Antwort",\n{i} ä 🙂 '), "help": i, "safe": safe}
    for i, safe in enumerate(["safe", None, "unsafe", "N/A"], start=1)
]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "csv", "csv.gz", "parquet"])
def test_every_format_reads_to_equal_rows(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    texts = [{**r, "messages": json.dumps(r["messages"])} for r in FORMAT_ROWS]
    if ending == "parquet":
        pq.write_table(pa.Table.from_pylist(FORMAT_ROWS), path)
    else:
        with gzip.open(path, "wt", newline="") if ending.endswith("gz") else path.open("w", newline="") as out:
            if ending.startswith("csv"):
                writer = csv.DictWriter(out, list(texts[0]))
                writer.writeheader()
                writer.writerows(texts)
            elif ending == "json":
                json.dump(FORMAT_ROWS, out)
            else:
                out.writelines(json.dumps(r) + "\n" for r in FORMAT_ROWS)
    read = stream_ratings(records(path), source="s", objectives=OBJECTIVES, where="here").read()
    assert read.rows == ratings_of(*FORMAT_ROWS).rows
    assert [r.ratings for r in read.rows] == [{"help": 1, "safe": 1}, {"help": 2}, {"help": 3, "safe": 0}, {"help": 4}]
    told = {"messages: JSON text read as messages": 4} if ending.startswith("csv") else {}
    assert (read.total, sum(read.faults.drops.values()), read.faults.notes) == (4, 0, {**told, "rating-na": 1})


TEXT = st.sampled_from(["user", "assistant", "", " ", "a", "\ud800", "[]", "\x00", "nan", "1e999"]) | st.text(max_size=5)
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
KEY = st.sampled_from(["role", "content", "x"])
JSON = SCALAR | st.lists(SCALAR, max_size=3) | st.dictionaries(KEY, SCALAR | st.lists(SCALAR, max_size=2), max_size=3)
TURN = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=3) | JSON})
VALUE = JSON | st.lists(TURN, max_size=4) | st.sampled_from(["safe", "N/A", "3", 3, math.nan, turns("A", "B"), turns("A", "C")])
FIELDS = st.sampled_from(
    ["id", "messages", "prompt", "response", "system", "chosen", "rejected", "section", "help", "safe", "topic"]
)
LINES = st.lists(st.dictionaries(FIELDS, VALUE, max_size=8) | JSON, max_size=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(LINES)
def test_whatever_json_comes_in_becomes_valid_rows_or_counted_faults(tmp_path_factory, lines):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rated = stream_ratings(records(path), source="s", objectives=OBJECTIVES, where="here").read()
    pairs = stream_pairs(records(path), source="s", where="here").read()
    for read in (rated, pairs):
        assert len(read.rows) + sum(read.faults.drops.values()) == read.total == len(lines)
        assert len({r.id for r in read.rows}) == len(read.rows)
        assert {e.split(": ")[1].split(" (")[0] for e in read.faults.examples} == set(read.faults.counts)
    for row in rated.rows:
        assert fault_in(row.messages) is None
        assert row.ratings
        assert all(OBJECTIVES[OBJECTIVES.column(n)].raw(v) == v for n, v in row.ratings.items())
    for row in pairs.rows:
        assert fault_in(row.conversation(row.chosen)) is fault_in(row.conversation(row.rejected)) is None
        assert row.chosen != row.rejected


def many(n):
    values = ({**GOOD, "id": f"r{i}", "help": 1 + (i % 10 == 0)} for i in range(n))
    return ratings_of(*values).rows


def stratum(row):
    return str(row.ratings["help"])


def test_a_cap_keeps_shares_order_and_nests():
    rows = many(500)
    small, large = (cap_rows(rows, cap, seed=0, strata=stratum) for cap in (50, 200))
    assert Counter(map(stratum, small)) == {"1.0": 45, "2.0": 5}
    assert len(large) == 200
    assert {r.id for r in small} < {r.id for r in large}
    assert list(large) == [r for r in rows if r in large]
    assert {r.id for r in cap_rows(rows[::-1], 50, seed=0, strata=stratum)} == {r.id for r in small}
    assert cap_rows(rows, 50, seed=1, strata=stratum) != small


def test_without_a_cap_or_with_a_larger_one_every_row_stays():
    rows = many(5)
    assert cap_rows(rows, None, seed=0, strata=stratum) == cap_rows(rows, 9, seed=0, strata=stratum) == rows
    with pytest.raises(DataError, match="at least 1"):
        cap_rows(rows, 0, seed=0, strata=stratum)


needs_data = pytest.mark.skipif("ARMORM_DATA" not in os.environ, reason="ARMORM_DATA does not name the folder with the real data")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "rows", "groups"), [("just-eval", 657, 644), ("qlora-vicuna", 2145, 60), ("mt-bench", 2430, 77)]
)
def test_real_ratings_are_all_read(name, rows, groups):
    objectives = Objectives.from_file(Path(os.environ["ARMORM_DATA"]) / "ratings/objectives.json")
    stream = chain.from_iterable(map(records, expand(f"$ARMORM_DATA/ratings/{name}.jsonl.gz")))
    read = stream_ratings(stream, source=name, objectives=objectives, where=name).read("fail")
    assert (len(read.rows), read.total, len({r.group for r in read.rows})) == (rows, rows, groups)
    assert set(read.faults.notes) <= {"repeated"}


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("pairs/gsm8k", 1462),
        ("pairs/hh-harmless-dev", 474),
        ("bench/rewardbench-partial", 1039),
        ("bench/dev-pairs", 1165),
    ],
)
def test_real_pairs_are_all_read(name, rows):
    stream = chain.from_iterable(map(records, expand(f"$ARMORM_DATA/{name}.jsonl.gz")))
    read = stream_pairs(stream, source=name, where=name).read()
    assert (len(read.rows), read.total, read.faults.counts) == (rows, rows, {})
