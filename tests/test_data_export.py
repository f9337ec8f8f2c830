"""Export: what is written reads again as the same rows, whatever the rows; a file is whole or not there."""

from __future__ import annotations

import json
import os
from itertools import chain
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_data_inspect import any_rows, lines

from armorm.data import export as exporting
from armorm.data.export import export
from armorm.data.files import expand, records
from armorm.data.opening import Request, objectives_in, open_source
from armorm.data.reading import stream_pairs, stream_ratings
from armorm.errors import DataError, InUse, StorageError
from armorm.objectives import Objectives

OBJECTIVES = [
    {"name": "quality", "min": 0, "max": 4, "rater": "panel", "licence": "MIT", "scale_map": "bin_centres"},
    {"name": "safe", "categories": {"no": 0, "yes": 1}, "direction": "lower_is_better"},
]
TURNS = [{"role": r, "content": c} for r, c in (("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4"))]
ROWS = [
    {"id": "a", "prompt": "p", "system": "s", "response": "r\n“é”", "quality": "3", "safe": "yes"},
    {"messages": TURNS, "safe": 0},
    {"prompt": "p", "response": " kept as it stands ", "quality": 1.5, "safe": "N/A"},
    {"prompt": "p", "response": "", "quality": 1},
    {"prompt": "p", "response": "off", "quality": 9},
]


def once(path: Path) -> Path:
    """A single file of the folder, that no unfinished one stands beside."""
    assert [p.name for p in path.parent.iterdir() if "part" in p.name] == []
    return path


@pytest.fixture
def ratings(tmp_path: Path) -> Path:
    (tmp_path / "objectives.json").write_text(json.dumps(OBJECTIVES), encoding="utf-8")
    return lines(tmp_path / "rows.jsonl", ROWS)


def test_ratings_read_again_as_the_same_rows(ratings: Path, tmp_path: Path):
    out = tmp_path / "elsewhere" / "rows.parquet"
    done = export(open_source(Request(str(ratings))), out)
    assert (done.rows, done.total, dict(done.faults.counts)) == (3, 5, {"empty-turn": 1, "rating-off-scale": 1})
    objectives = Objectives.from_json(OBJECTIVES)
    first = stream_ratings(records(ratings), source="rows", objectives=objectives, where="").read()
    again = stream_ratings(records(once(out)), source="rows", objectives=objectives, where="").read("fail")
    assert again.rows == first.rows
    assert len(again.rows) == 3
    assert pq.read_schema(out).names == ["id", "group", "source", "messages", "quality", "safe"]
    assert pq.read_table(out).column("safe").to_pylist() == [1.0, 0.0, None]


def test_the_file_carries_its_objectives_and_what_was_left_out(ratings: Path, tmp_path: Path):
    out = tmp_path / "elsewhere" / "rows.parquet"
    export(open_source(Request(str(ratings))), out)
    assert objectives_in(out) == Objectives.from_json(OBJECTIVES)
    opened = open_source(Request(str(out)))
    assert opened.objectives == Objectives.from_json(OBJECTIVES)
    assert opened.kind == "ratings"
    counts = json.loads(pq.read_metadata(out).metadata[b"armorm.counts"])
    assert (counts["records"], counts["rows"]) == (5, 3)
    assert counts["faults"] == {"empty-turn": 1, "rating-off-scale": 1}
    assert counts["notes"] == {"rating-na": 1}


def test_pairs_read_again_as_the_same_rows(tmp_path: Path):
    context = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3"}]
    sides = {side: [*context, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    rows = [{"prompt": "p", "system": "s", "chosen": "a", "rejected": "b", "section": "chat", "subset": "easy", "id": 7}, sides]
    path, out = lines(tmp_path / "pairs.jsonl", rows), tmp_path / "out.parquet"
    done = export(open_source(Request(str(path))), out)
    assert (done.kind, done.rows) == ("pairs", 2)
    first = stream_pairs(records(path), source="pairs", where="").read()
    assert stream_pairs(records(once(out)), source="pairs", where="").read("fail").rows == first.rows
    assert first.rows[0].section == "chat"
    assert open_source(Request(str(out))).kind == "pairs"


def test_datasets_loads_the_file(ratings: Path, tmp_path: Path):
    import datasets

    out = tmp_path / "rows.parquet"
    export(open_source(Request(str(ratings))), out)
    loaded = datasets.load_dataset("parquet", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 3
    assert loaded[1]["messages"][-1] == {"role": "assistant", "content": "4"}
    assert loaded["quality"][:] == [3.0, None, 1.5]


@given(any_rows, st.sampled_from([None, "ratings", "pairs"]))
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_rows_are_exported_whole_or_refused(tmp_path: Path, rows, kind):
    path, out = lines(tmp_path / "any.jsonl", rows), tmp_path / "any.parquet"
    out.unlink(missing_ok=True)
    opened = open_source(Request(str(path), kind=kind))
    if not list(open_source(Request(str(path), kind=kind)).stream):
        with pytest.raises(DataError, match="no row to export"):
            export(opened, out)
        assert not once(out).exists()
        return
    done = export(opened, out)
    again = open_source(Request(str(once(out)), kind=kind or opened.kind))
    read = list(again.stream)
    assert len(read) == done.rows
    assert not again.stream.faults.drops
    assert again.objectives == opened.objectives
    first = list(open_source(Request(str(path), kind=kind)).stream)
    assert read == first


def test_many_row_groups_hold_the_rows_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exporting, "GROUP_ROWS", 10)
    rows = [{"id": f"r{i}", "prompt": f"p{i}", "response": "r", "score": i % 4} for i in range(35)]
    out = tmp_path / "rows.parquet"
    export(open_source(Request(str(lines(tmp_path / "rows.jsonl", rows)))), out)
    assert pq.ParquetFile(out).num_row_groups == 4
    assert pq.read_table(out).column("id").to_pylist() == [r["id"] for r in rows]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException]):
    monkeypatch.setattr(exporting, "GROUP_ROWS", 2)
    path, out = (
        lines(tmp_path / "rows.jsonl", [{"prompt": f"p{i}", "response": "r", "s": i % 4} for i in range(9)]),
        tmp_path / "o.parquet",
    )

    def broken(found):
        for n, one in enumerate(found):
            if n == 6:
                raise stop
            yield one

    with pytest.raises(stop):
        export(open_source(Request(str(path)), watch=broken), out)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]
    export(open_source(Request(str(path))), out)
    assert pq.read_table(once(out)).num_rows == 9


def test_an_export_has_one_writer_and_replaces_nothing(tmp_path: Path):
    path, out = (
        lines(tmp_path / "rows.jsonl", [{"prompt": f"p{i}", "response": "r", "s": i} for i in range(9)]),
        tmp_path / "o.parquet",
    )

    def joined(found):
        for n, one in enumerate(found):
            if n == 3:
                with pytest.raises(InUse, match=rf"o\.parquet: is being written by process {os.getpid()} "):
                    export(open_source(Request(str(path))), out)
                out.write_text("mine", encoding="utf-8")
            yield one

    with pytest.raises(DataError, match=r"o\.parquet: something of this name came there while it was made"):
        export(open_source(Request(str(path)), watch=joined), out)
    assert out.read_text(encoding="utf-8") == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == [out.name, "rows.jsonl"]


def test_what_can_not_be_a_column_is_refused(tmp_path: Path):
    path = lines(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "r", "id": 1}])
    for name in ("id", "chosen"):
        facts = tmp_path / "facts.json"
        facts.write_text(json.dumps([{"name": name, "min": 0, "max": 1}]), encoding="utf-8")
        with pytest.raises(DataError, match="rename it"):
            export(open_source(Request(str(path), kind="ratings", objectives=facts)), tmp_path / "o.parquet")


def test_a_place_that_can_not_be_written_is_named(ratings: Path, tmp_path: Path):
    with pytest.raises(StorageError, match="can't be written"):
        export(open_source(Request(str(ratings))), ratings / "below-a-file" / "o.parquet")
    for name in ("o.csv", "o"):
        with pytest.raises(DataError, match=r"ends in \.parquet"):
            export(open_source(Request(str(ratings))), tmp_path / name)


needs_data = pytest.mark.skipif("ARMORM_DATA" not in os.environ, reason="ARMORM_DATA does not name the folder with the real data")


@pytest.mark.data
@needs_data
@pytest.mark.parametrize(("name", "rows"), [("ratings/mt-bench", 2430), ("pairs/gsm8k", 1462)])
def test_real_rows_come_back_unchanged(tmp_path: Path, name: str, rows: int):
    pattern = f"$ARMORM_DATA/{name}.jsonl.gz"
    opened = open_source(Request(pattern))
    out = tmp_path / "rows.parquet"
    assert export(opened, out).rows == rows
    again = list(open_source(Request(str(out))).stream)
    assert [(r.id, r.group) for r in again] == [(r.id, r.group) for r in open_source(Request(pattern)).stream]
    assert len(list(chain.from_iterable(map(records, expand(pattern))))) == rows
