"""Checking a user's rows: every fault with its place, kinds and objectives found, any file without a traceback."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data_inspect import any_rows, lines

from armorm.data.opening import Request, open_source
from armorm.data.validate import validate
from armorm.errors import DataError

FACTS = [{"name": "score", "min": 0, "max": 4}, {"name": "other", "min": 0, "max": 1}]


def facts(folder: Path) -> Path:
    path = folder / "facts.json"
    path.write_text(json.dumps(FACTS), encoding="utf-8")
    return path


def test_each_fault_is_told_once_with_its_row(tmp_path: Path):
    rows = [
        {"prompt": "p", "response": "r", "score": 4},
        {"prompt": "p", "response": "r", "score": 5},
        {"prompt": "p", "score": 4},
        {"prompt": "p", "response": " ", "score": 4},
        {"prompt": "p", "response": "r"},
        {"prompt": "p", "response": "r", "score": "four"},
        {"prompt": "p", "response": "r", "score": 4},
        {"id": "x", "prompt": "p2", "response": "r", "score": 1},
        {"id": "x", "prompt": "p3", "response": "r", "score": 1},
        ["no object"],
    ]
    path, told = lines(tmp_path / "rows.jsonl", rows), list[str]()
    found = validate(open_source(Request(str(path), objectives=facts(tmp_path)), on_fault_line=told.append))
    assert (found.total, found.kept, found.faulty, found.groups) == (10, 3, 7, 2)
    assert [line.partition(" (")[0].split(":")[1:3] for line in told] == [
        ["2", " rating-off-scale"],
        ["3", " missing-field"],
        ["4", " empty-turn"],
        ["5", " no-rating"],
        ["6", " rating-not-a-number"],
        ["9", " duplicate-id"],
        ["10", " not-an-object"],
    ]
    assert all(line.startswith(str(path)) and line.endswith(")") for line in told)
    assert found.faults.notes == {"repeated": 1}
    assert found.rated == {"score": 3, "other": 0}
    assert found.remarks == ("no row rates other",)
    assert sum(found.to_json()["faults"].values()) == 7


def test_without_facts_the_numeric_columns_are_objectives(tmp_path: Path):
    rows = [
        {
            "prompt": f"p{i}",
            "response": "r",
            "score": i % 5,
            "n": i,
            "same": 1,
            "word": "w",
            "flag": bool(i % 2),
            "part_id": 9 - i % 3,
        }
        for i in range(12)
    ]
    rows.append({"prompt": "p", "response": "r", "score": "five"})
    path, told = lines(tmp_path / "rows.jsonl", rows), list[str]()
    opened = open_source(Request(str(path)), on_fault_line=told.append)
    assert {o.name: (o.min, o.max) for o in opened.objectives} == {"score": (0, 4), "flag": (0, 1)}
    assert "n (counts the rows)" in opened.remarks[1]
    assert "same (always the same)" in opened.remarks[1]
    assert validate(opened).faults.counts == {"rating-not-a-number": 1}
    assert "13: rating-not-a-number" in told[0]


def test_facts_beside_the_file_are_taken_and_those_asked_for_go_first(tmp_path: Path):
    path = lines(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "r", "score": 3}])
    (tmp_path / "objectives.json").write_text('[{"name": "score", "min": 0, "max": 9}]', encoding="utf-8")
    beside = open_source(Request(str(path)))
    assert [o.max for o in beside.objectives] == [9]
    assert "objectives.json" in beside.remarks[0]
    assert [o.max for o in open_source(Request(str(path), objectives=facts(tmp_path))).objectives] == [4, 1]
    (tmp_path / "objectives.json").write_text("{}", encoding="utf-8")
    with pytest.raises(DataError, match="non-empty list"):
        open_source(Request(str(path)))


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "pairs"),
        ({"prompt": "p", "response": "b", "s": 1}, "ratings"),
        ({"chosen": "only"}, "ratings"),
    ],
)
def test_the_kind_is_seen_in_the_first_row(tmp_path: Path, row: dict, kind: str):
    path = tmp_path / "rows.jsonl"
    path.write_text("not json\n" + json.dumps(row) + "\n", encoding="utf-8")
    assert open_source(Request(str(path))).kind == kind
    assert open_source(Request(str(path), kind="pairs")).kind == "pairs"


def test_a_limit_reads_no_further(tmp_path: Path):
    path = lines(tmp_path / "rows.jsonl", [{"prompt": f"p{i}", "response": "r", "s": i % 2} for i in range(9)])
    found = validate(open_source(Request(str(path), limit=4)))
    assert (found.total, found.kept) == (4, 4)


@given(any_rows, st.sampled_from([None, "ratings", "pairs"]), st.booleans())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_rows_are_checked(tmp_path: Path, rows, kind, given_facts: bool):
    path, told = lines(tmp_path / "any.jsonl", rows), list[str]()
    objectives = facts(tmp_path) if given_facts and kind == "ratings" else None
    found = validate(open_source(Request(str(path), kind=kind, objectives=objectives), on_fault_line=told.append))
    assert found.total == len(rows)
    assert found.kept + sum(found.faults.drops.values()) == found.total
    assert len(told) == found.faulty
    json.dumps(found.to_json())


@given(st.binary(max_size=200), st.sampled_from(["jsonl", "json", "csv", "jsonl.gz", "parquet"]))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_checked_or_refused(tmp_path: Path, content: bytes, ending: str):
    path = tmp_path / f"any.{ending}"
    path.write_bytes(content)
    try:
        found = validate(open_source(Request(str(path))))
    except DataError:
        return
    assert found.kept + sum(found.faults.drops.values()) == found.total
