from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from armorm.data.files import REMEDIES, BadRecord, Record, expand, fingerprint, hub_records, records
from armorm.data.opening import Request, open_source
from armorm.errors import DataError

ROWS = [{"id": f"r{i}", "text": f'Zeile {i}, "so"\nund: ä ∑ 🙂', "more": "x"} for i in range(1, 8)]


def write(path, rows):
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
        return path
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as out:
        if name.endswith(".csv"):
            writer = csv.DictWriter(out, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif name.endswith(".json"):
            json.dump(rows, out, indent=1)
        else:
            out.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    return path


def found(path):
    return [(r.row, r.values if isinstance(r, Record) else r.fault) for r in records(path)]


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "json", "json.gz", "csv", "csv.gz", "parquet"])
def test_every_format_gives_the_same_records(tmp_path, ending):
    path = write(tmp_path / f"rows.{ending}", ROWS)
    assert list(records(path)) == [Record(i, values, str(path)) for i, values in enumerate(ROWS, start=1)]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path, ending):
    path = write(tmp_path / f"rows.{ending}", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [values for _, values in found(path)] == ROWS


def test_a_cell_may_be_longer_than_the_csv_modules_limit(tmp_path):
    path = write(tmp_path / "rows.csv", [{"text": "a" * 300_000}])
    assert found(path) == [(1, {"text": "a" * 300_000})]


def test_faulty_lines_keep_their_number_and_reading_goes_on(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n{"a": \n[1]\n{"a": "\xff"}\n' + b"[" * 100_000 + b'\n{"a": 2}')
    assert found(path) == [
        (1, {"a": 1}),
        (3, "not-json"),
        (4, "not-an-object"),
        (5, "not-utf8"),
        (6, "too-deep"),
        (7, {"a": 2}),
    ]
    bad = [r for r in records(path) if isinstance(r, BadRecord)]
    assert [(b.where, b.remedy) for b in bad] == [(str(path), REMEDIES[b.fault]) for b in bad]


def test_a_number_with_too_many_digits_is_a_faulty_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": {"9" * 5000}}}\n{{"a": 2}}\n')
    assert found(path) == [(1, "not-json"), (2, {"a": 2})]


def test_a_truncated_gzip_file_gives_what_it_holds_and_says_so(tmp_path):
    rows = [{"id": i, "text": hashlib.sha512(str(i).encode()).hexdigest()} for i in range(4000)]
    path = write(tmp_path / "rows.jsonl.gz", rows)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    seen = found(path)
    assert 100 < len(seen) < 4000
    assert [values for _, values in seen[:-1]] == rows[: len(seen) - 1]
    assert seen[-1] == (len(seen), "truncated-file")


@pytest.mark.parametrize("name", ["ROWS.JSONL", "rows.jsonl.GZ", "rows.Json.Gz", "rows.CSV", "rows.PARQUET"])
def test_an_ending_in_capitals_is_the_same_ending(tmp_path, name):
    path = write(tmp_path / name.lower(), ROWS).rename(tmp_path / name)
    assert [values for _, values in found(path)] == ROWS


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that fails when it is read")
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_file_that_fails_while_it_is_read_is_named(tmp_path, ending):
    path = tmp_path / f"rows.{ending}"
    path.symlink_to("/proc/self/mem")
    with pytest.raises(DataError, match=rf"rows\.{ending}: can't be read: Input/output error"):
        list(records(path))


def test_a_limit_beyond_all_numbers_is_no_limit(tmp_path):
    path = write(tmp_path / "rows.jsonl", [{"prompt": f"q{i}", "response": "b", "helpful": i} for i in range(3)])
    opened = open_source(Request(str(path), limit=10**30))
    assert len(list(opened.stream)) == 3


def test_a_file_that_only_claims_to_be_gzip_is_one_fault(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_text('{"a": 1}\n')
    assert found(path) == [(1, "truncated-file")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'[{"a": 1}, 7, {"a": 2}]', [(1, {"a": 1}), (2, "not-an-object"), (3, {"a": 2})]),
        (b'[{"a": 1}, {"a": "\xff"}, {"a": 2}]', [(1, {"a": 1}), (2, "not-utf8"), (3, {"a": 2})]),
        (b'[{"a": 1}, {"a": oh}, {"a": 2}]', [(1, {"a": 1}), (2, "not-json")]),
        (b'[{"a": 1},', [(1, {"a": 1}), (2, "truncated-file")]),
        (b'[{"a": 1}', [(1, {"a": 1}), (2, "truncated-file")]),
        (b'[{"a": 1}] trailing', [(1, {"a": 1}), (2, "not-json")]),
        (b'{"rows": []}', [(1, {"rows": []})]),
        (b'{"rows":\n []\n}\n', [(1, {"rows": []})]),
        (b'{"rows": [}', [(1, "not-json")]),
        (b"", [(1, "not-json")]),
        (b" [ ] ", []),
    ],
)
def test_a_json_list_is_read_up_to_its_break(tmp_path, text, expected):
    path = tmp_path / "rows.json"
    path.write_bytes(text)
    assert found(path) == expected


def test_a_json_file_of_lines_is_read_as_lines(tmp_path):
    path = tmp_path / "train.json"
    path.write_bytes(b'{"a": 1}\n{"a": 2\n{"a": 3}\n')
    assert found(path) == [(1, {"a": 1}), (2, "not-json"), (3, {"a": 3})]


def test_faulty_csv_records_are_named_and_reading_goes_on(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'a,b\n1,2\n\n3\n"x"y,4\n\xff,5\n6,7\n8,"open')
    assert found(path) == [
        (1, {"a": "1", "b": "2"}),
        (2, "not-csv"),
        (3, "not-csv"),
        (4, "not-utf8"),
        (5, {"a": "6", "b": "7"}),
        (6, "truncated-file"),
    ]


def test_a_csv_header_must_be_readable_and_name_each_column_once(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("a,a\n1,2\n")
    with pytest.raises(DataError, match="share a name"):
        list(records(path))
    path.write_bytes(b"a,\xff\n1,2\n")
    with pytest.raises(DataError, match="UTF-8"):
        list(records(path))


def test_a_damaged_parquet_file_is_one_fault(tmp_path):
    path = write(tmp_path / "rows.parquet", ROWS)
    path.write_bytes(path.read_bytes()[:-9])
    assert found(path) == [(1, "truncated-file")]


def test_a_parquet_file_damaged_in_the_name_of_a_column_is_one_fault(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"name": ["x"]}), path, store_schema=False)
    path.write_bytes(path.read_bytes().replace(b"name", b"n\xffme"))
    assert found(path) == [(1, "truncated-file")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="flips are tried in forks")
def test_a_parquet_file_damaged_in_what_it_says_of_its_columns_ends_no_process(tmp_path):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": [1, 2, None] * 5, "b": ["x", "yy", None] * 5, "c": [[1, 2], [3], None] * 5}), path)
    done = subprocess.run([sys.executable, "-c", DEADLY_FLIPS, path], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        pytest.skip("this pyarrow ends no process")
    assert set(done.stdout.split()) == {"truncated-file"}


DEADLY_FLIPS = """
import os, random, sys
from pathlib import Path
import pyarrow.parquet as pq
from armorm.data.files import records

path = Path(sys.argv[1])
whole = path.read_bytes()
end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")

def ask():
    with pq.ParquetFile(path) as file:
        group = file.metadata.row_group(0)
        [group.column(i) for i in range(group.num_columns)]

def ends_a_process(work):
    if not (child := os.fork()):
        os.close(2)
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])

drawn, met = random.Random(0), 0
for _ in range(1500):
    if met == 3:
        break
    damaged = bytearray(whole)
    damaged[drawn.randrange(end, len(whole) - 8)] ^= 1 << drawn.randrange(8)
    path.write_bytes(damaged)
    if ends_a_process(ask):
        met += 1
        print(*(bad.fault for bad in records(path)))
"""

FREE = [
    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"x": 1, "y": None}}}]},
    {"type": "function", "function": {"name": "f", "parameters": {"default": None, "type": "x"}}},
    {"name": "f", "parameters": {"properties": {"x": {"default": None}}}},
    {"type": "function", "function": {"name": "f", "strict": None}},
]


@pytest.mark.parametrize("value", FREE)
def test_a_null_of_a_call_or_a_tool_is_kept(tmp_path, value):
    path = write(tmp_path / "rows.parquet", [{"cell": [value]}])
    assert found(path) == [(1, {"cell": [value]})]


@pytest.mark.parametrize(
    ("values", "read"),
    [
        ([{"role": "user", "content": "a", "name": None}], [{"role": "user", "content": "a"}]),
        ([{"from": "human", "value": "a", "x": None}], [{"from": "human", "value": "a"}]),
        ([{"role": "user", "content": [{"text": "a", "image": None}]}], [{"role": "user", "content": [{"text": "a"}]}]),
        (
            [{"tool_calls": [{"id": None, "function": {"name": None, "arguments": {"y": None}}}]}],
            [{"tool_calls": [{"function": {"arguments": {"y": None}}}]}],
        ),
    ],
)
def test_a_null_key_of_a_message_is_none(tmp_path, values, read):
    path = write(tmp_path / "rows.parquet", [{"cell": values}])
    assert found(path) == [(1, {"cell": read})]


def test_a_parquet_text_that_is_no_utf8_faults_its_row_alone(tmp_path):
    path = tmp_path / "rows.parquet"
    texts = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffb"))
    pq.write_table(pa.table({"a": texts}), path)
    assert found(path) == [(1, "not-utf8"), (2, {"a": "b"})]


@pytest.mark.parametrize(("name", "says"), [("rows.txt", "format"), ("none.jsonl", "no such file"), ("x.parquet.gz", "format")])
def test_what_can_not_be_opened_is_said_at_once(tmp_path, name, says):
    with pytest.raises(DataError, match=says):
        records(tmp_path / name)
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match="folder"):
        records(tmp_path / "folder.jsonl")


def test_patterns_are_expanded_and_sorted(tmp_path, monkeypatch):
    folder = tmp_path / "odd [name]"
    (folder / "deep").mkdir(parents=True)
    for name in ("b.jsonl", "a.jsonl", "deep/c.jsonl", "d.csv"):
        (folder / name).touch()
    monkeypatch.setenv("ARMORM_TEST_FOLDER", str(folder))
    assert expand("$ARMORM_TEST_FOLDER/*.jsonl") == [folder / "a.jsonl", folder / "b.jsonl"]
    assert expand("${ARMORM_TEST_FOLDER}/**/*.jsonl") == [folder / "a.jsonl", folder / "b.jsonl", folder / "deep/c.jsonl"]
    assert expand(str(folder / "d.csv")) == [folder / "d.csv"]
    with pytest.raises(DataError, match="no file matches"):
        expand("$ARMORM_TEST_FOLDER/*.parquet")
    with pytest.raises(DataError, match="ARMORM_TEST_UNSET is not set"):
        expand("$ARMORM_TEST_UNSET/*.jsonl")


def test_hub_rows_are_counted_and_the_arguments_handed_on(monkeypatch):
    calls = []

    def load(path, **options):
        calls.append((path, options))
        return iter([{"a": 1}, {"a": 2}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    rows = list(hub_records("owner/set", "test", "abc", "part"))
    assert [(r.row, r.values, r.where) for r in rows] == [
        (1, {"a": 1}, "owner/set/part[test]"),
        (2, {"a": 2}, "owner/set/part[test]"),
    ]
    assert calls == [("owner/set", {"name": "part", "split": "test", "revision": "abc", "data_dir": None, "streaming": True})]


def test_an_unreachable_hub_says_how_to_bring_the_files(monkeypatch):
    def load(path, **options):
        raise ConnectionError("no route")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load))
    with pytest.raises(DataError, match=r"no route.*hf download owner/set .*as the `path`"):
        next(hub_records("owner/set", "train", None, None))


def test_the_fingerprint_is_that_of_the_bytes(tmp_path):
    path = write(tmp_path / "rows.jsonl.gz", ROWS)
    assert fingerprint(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(DataError):
        fingerprint(tmp_path / "none")
