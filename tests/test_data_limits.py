"""No row, line, list or page makes a reader hold more than its limits; what is refused has a name, and reading goes on."""

from __future__ import annotations

import csv
import gzip
import json
import random
import subprocess
import sys
from itertools import chain, repeat
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from armorm.data import blocks, files, parquet_rows
from armorm.data.blocks import BLOCK, Ended, TooLong, entries_in, lines_in
from armorm.data.csv_rows import csv_rows
from armorm.data.files import BadRecord, records
from armorm.errors import DataError
from armorm.user_json import DEEPEST, JsonFault, read_json


def found(path):
    return [(r.row, r.fault if isinstance(r, BadRecord) else r.values) for r in records(path)]


@pytest.fixture
def short(monkeypatch):
    """Readers whose longest row has 64 bytes."""
    monkeypatch.setattr(blocks, "LONGEST_ROW", 64)
    monkeypatch.setattr(files, "LONGEST_ROW", 64)
    monkeypatch.setattr(parquet_rows, "LONGEST_ROW", 64)
    return 64


class Pieces:
    """A stream that gives its bytes in pieces of a few."""

    def __init__(self, data: bytes, size: int) -> None:
        self.data, self.size = data, size

    def read1(self, size: int, /) -> bytes:
        piece, self.data = self.data[: self.size], self.data[self.size :]
        return piece


LONG = "x" * 80
TOO_LONG = {
    "rows.jsonl": (f'{{"a": 1}}\n\n{{"a": "{LONG}"}}\n{{"a": 3}}\n', [(1, {"a": 1}), (3, "too-long"), (4, {"a": 3})]),
    "end.jsonl": (f'{{"a": 1}}\n{{"a": "{LONG}', [(1, {"a": 1}), (2, "too-long")]),
    "blank.jsonl": (" " * 80 + '\n{"a": 2}\n', [(1, "too-long"), (2, {"a": 2})]),
    "list.json": (f'[{{"a": 1}}, {{"a": "]{LONG},"}},\n{{"a": 3}}]', [(1, {"a": 1}), (2, "too-long"), (3, {"a": 3})]),
    "deep.json": ("[" + "[" * 80 + "]" * 80 + ', {"a": 2}]', [(1, "too-long"), (2, {"a": 2})]),
    "one.json": (f'{{"a":\n"{LONG}"}}', [(1, "too-long")]),
    "lines.json": (f'{{"a": "{LONG}"}}\n{{"a": 2}}\n', [(1, "too-long"), (2, {"a": 2})]),
    "cell.csv": (f"a,b\n1,2\n3,{LONG}\n5,6\n", [(1, {"a": "1", "b": "2"}), (2, "too-long"), (3, {"a": "5", "b": "6"})]),
    "quoted.csv": (
        f'a,b\n1,"2\n\n2"\n3,"{LONG}\n""z"",\n\n{LONG}"\n5,6\n',
        [(1, {"a": "1", "b": "2\n\n2"}), (2, "too-long"), (3, {"a": "5", "b": "6"})],
    ),
    "many.csv": ("a\n1\n" + "," * 80 + "\n3\n", [(1, {"a": "1"}), (2, "too-long"), (3, {"a": "3"})]),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", TOO_LONG)
def test_a_row_that_is_too_long_is_passed_over_and_the_next_one_keeps_its_number(tmp_path, short, name, zipped):
    text, expected = TOO_LONG[name]
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    assert found(path) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 64])
def test_cells_of_many_lines_are_those_of_the_csv_module_however_the_file_is_read(tmp_path, monkeypatch, size):
    draw, path = random.Random(0), tmp_path / "rows.csv"
    monkeypatch.setattr(blocks, "BLOCK", size)
    for _ in range(60):
        cells = ["".join(draw.choices(["\n", "\r\n", '"', ",", "x", " "], k=draw.randrange(12))) for _ in range(8)]
        with path.open("w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *zip(cells[::2], cells[1::2], strict=True)])
        expected = [{"a": a, "b": b} for a, b in zip(cells[::2], cells[1::2], strict=True)]
        assert [row for _, row in csv_rows(path)] == expected


def test_lines_within_quotes_come_a_block_at_a_time():
    # The quotes are open from the first piece on; the third closes them.
    read = lines_in(Pieces(b'"a\nb\nc\ndd\nee\nff"\ng\nh\n', 7), inside=lambda: True, quoted=lambda: closed < 1)
    closed, lines = 0, []
    for _, line in read:
        assert isinstance(line, bytes)
        closed += line.count(b'"') if lines else 0
        lines.append(line)
    assert lines == [b'"a\n', b"b\n", b"c\n", b"dd\nee\n", b'ff"\n', b"g\n", b"h\n"]


def test_a_header_that_is_too_long_is_refused(tmp_path, short):
    path = tmp_path / "rows.csv"
    path.write_text(f"a,{LONG}\n1,2\n")
    with pytest.raises(DataError, match=r"header can't be read \(too-long\)"):
        list(records(path))


def test_a_row_of_a_table_that_is_too_long_is_passed_over(tmp_path, short):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": ["1", LONG, "3"], "b": ["", "", ""]}), path)
    assert found(path) == [(1, {"a": "1", "b": ""}), (2, "too-long"), (3, {"a": "3", "b": ""})]


def test_a_group_of_rows_that_swells_is_passed_over_unread(tmp_path, short, monkeypatch):
    path = tmp_path / "rows.parquet"
    with pq.ParquetWriter(path, pa.schema([("a", pa.string())]), compression="zstd", use_dictionary=False) as writer:
        for texts in (["1"], ["y" * 10**6] * 3, ["5"]):
            writer.write_table(pa.table({"a": texts}))
    read = []
    batches = pq.ParquetFile.iter_batches

    def watched(file, **how):
        for batch in batches(file, **how):
            read.extend(how["row_groups"])
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    assert found(path) == [(1, {"a": "1"}), *((row, "too-long") for row in (2, 3, 4)), (5, {"a": "5"})]
    assert read == [0, 2]


def test_a_value_of_a_dictionary_that_stands_in_every_row_is_read_a_few_rows_at_a_time(tmp_path, monkeypatch):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"a": ["z" * 10**5] * 1000}), path, compression="none")
    sizes = []
    batches = pq.ParquetFile.iter_batches

    def watched(file, **how):
        for batch in batches(file, **how):
            sizes.append(batch.nbytes)
            yield batch

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", watched)
    monkeypatch.setattr(parquet_rows, "_BATCH", 10**6)
    assert len(found(path)) == 1000
    assert max(sizes) < 2 * 10**6


def test_a_table_that_is_too_deep_or_names_a_column_twice_is_refused(tmp_path):
    kind = pa.int64()
    for _ in range(DEEPEST + 1):
        kind = pa.list_(kind)
    pq.write_table(pa.table({"a": pa.nulls(1, kind)}), tmp_path / "deep.parquet")
    assert found(tmp_path / "deep.parquet") == [(1, "too-deep")]
    pq.write_table(pa.table([pa.array([1]), pa.array([2])], names=["b", "b"]), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="share the name 'b'"):
        list(records(tmp_path / "twice.parquet"))


def test_a_cell_that_python_can_not_hold_faults_its_row(tmp_path):
    path = tmp_path / "rows.parquet"
    far = pa.array([0, 2**60], pa.int64()).cast(pa.timestamp("ms"))
    pq.write_table(pa.table({"a": far}), path)
    assert [fault for _, fault in found(path)][1] == "not-readable"


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"a": 1, "b": 2, "a": 3}', "repeated-key"),
        ('{"a": {"b": 1, "b": 1}}', "repeated-key"),
        ('{"a": [{"b": 1, "c": 2, "b": 1}]}', "repeated-key"),
        ('{"a": ' + "[" * 100 + "]" * 100 + "}", "too-deep"),
        ('{"a": ' * 900 + "1" + "}" * 900, "too-deep"),
        ('{"a\\ud800": 1}', "not-utf8"),
    ],
    ids=range(6),
)
def test_a_row_that_json_does_not_settle_is_named_and_reading_goes_on(tmp_path, ending, row, fault):
    path = tmp_path / f"rows.{ending}"
    rows = (row, '{"z": 2}')
    path.write_text("\n".join(rows) if ending == "jsonl" else f"[{','.join(rows)}]")
    assert found(path) == [(1, fault), (2, {"z": 2})]


def test_brackets_in_texts_and_beside_each_other_are_no_depth():
    text = json.dumps({"a": '["\\' + "[{" * 500, "b": [[1]] * 500, "c": "\\" * 3})
    assert read_json(text) == json.loads(text)
    deepest = "[" * DEEPEST + "]" * DEEPEST
    assert read_json(deepest) == json.loads(deepest)
    with pytest.raises(JsonFault, match="too-deep"):
        read_json(f"[{deepest}]")


# -- lines and entries, however they come ---------------------------------------------------------------------------------------

BITS = st.lists(st.sampled_from(["\n", " ", '"', "\\", "a", "é", ",", "[", "]", "{", "}", "\r\n"]), max_size=60).map("".join)


@settings(max_examples=150, deadline=None)
@given(BITS, st.integers(1, 7))
def test_lines_are_those_of_the_whole_text(text, size):
    data = text.encode()
    expected = [(i, line) for i, line in enumerate(data.split(b"\n"), start=1) if line.strip()]
    assert [(i, line.rstrip(b"\n")) for i, line in lines_in(Pieces(data, size))] == expected


VALUES = st.recursive(
    st.none() | st.integers(-9, 9) | st.text(st.sampled_from('a"\\,[]{}é\n'), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 1]), st.integers(1, 9))
def test_entries_are_those_of_the_list(values, indent, size):
    text = json.dumps(values, ensure_ascii=False, indent=indent).encode()
    *entries, end = entries_in(Pieces(text[1:], size))
    assert [json.loads(entry) for entry in entries] == values
    assert end == Ended()


def test_a_list_is_read_in_blocks(monkeypatch):
    blank, taken = b" " * BLOCK, []

    class Endless:
        def __init__(self):
            self.blocks = chain([b'{"a": "'], repeat(b"x" * BLOCK, 70), [b'"}, 7, '], repeat(blank, 3), [b"8]"])

        def read1(self, size, /):
            taken.append(size)
            return next(self.blocks, b"")

    assert list(map(type, entries_in(Endless()))) == [TooLong, bytes, bytes, Ended]
    assert set(taken) == {BLOCK}


# -- memory ---------------------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from pathlib import Path
from armorm.data.files import records
from armorm.errors import DataError
path = Path(sys.argv[1])
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
before = peak()
try:
    seen = [(r.row, getattr(r, "fault", "")) for r in records(path)]
except DataError as error:
    seen = str(error)
print(peak() - before, seen)
"""
PIECES = 200
"""Of a MiB each: what a file that is small on disk swells to."""
linux = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux for the peak of the memory")


def swelling(path, before, piece, after=b""):
    """A file, some hundred kB of gzip, that holds a piece of some letters for `PIECES` MiB."""
    first, middle, last = (gzip.compress(text, 1) for text in (before, piece * (BLOCK // len(piece)), after))
    path.write_bytes(first + middle * PIECES + last)
    assert path.stat().st_size < 5e6


def most(piece):
    """MiB above the start: a record of several lines goes through the csv module, which takes four bytes a letter."""
    return 320 if len(piece) > 2 else 160


def peak_of(path):
    """MiB that reading a file took at most, in a process of its own, and the faults of its rows or what the reader said."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True, timeout=60)
    peak, _, seen = done.stdout.partition(" ")
    return int(peak), seen.strip()


@linux
@pytest.mark.parametrize(
    ("name", "before", "piece", "after", "expected"),
    [
        ("rows.jsonl.gz", b'{"a": "', b"x", b'"}\n{"a": 2}\n', "[(1, 'too-long'), (2, '')]"),
        ("rows.jsonl.gz", b"", b"[", b"\n{}\n", "[(1, 'too-long'), (2, '')]"),
        ("rows.json.gz", b'[{"a": "', b"x", b'"}, {"a": 2}]', "[(1, 'too-long'), (2, '')]"),
        ("rows.json.gz", b'{"a": "', b"x", b'"}', "[(1, 'too-long')]"),
        ("rows.json.gz", b'"', b"x", b"", "[(1, 'too-long')]"),
        ("rows.json.gz", b"", b"[", b"", "[(1, 'too-long'), (2, 'truncated-file')]"),
        ("rows.csv.gz", b"a,b\n1,", b"x", b"\n3,4\n", "[(1, 'too-long'), (2, '')]"),
        ("rows.csv.gz", b'a,b\n1,"', b"y" * 1023 + b"\n", b'"\n3,4\n', "[(1, 'too-long'), (2, '')]"),
    ],
    ids=range(8),
)
def test_memory_does_not_follow_the_line(tmp_path, name, before, piece, after, expected):
    swelling(tmp_path / name, before, piece, after)
    peak, seen = peak_of(tmp_path / name)
    assert seen == expected
    assert peak < most(piece)


@linux
@pytest.mark.parametrize(
    ("before", "piece", "after"),
    [
        (b"", b"x", b"\n1\n"),
        (b"a,", b"x", b""),
        (b'"', b"y" * 1023 + b"\n", b'"\n1\n'),
        (b"a", b",a", b"\n1\n"),
        (b"", b" ", b"a\n1\n"),
    ],
    ids=["one name", "no end", "quoted", "many names", "blanks"],
)
def test_memory_does_not_follow_a_header(tmp_path, before, piece, after):
    swelling(tmp_path / "rows.csv.gz", before, piece, after)
    peak, said = peak_of(tmp_path / "rows.csv.gz")
    assert said.endswith("rows.csv.gz: the header can't be read (too-long): make it shorter")
    assert peak < most(piece)


@linux
@pytest.mark.parametrize(
    ("name", "before", "blank", "seen"),
    [
        ("rows.jsonl.gz", b"", b"\n", "[]"),
        ("rows.jsonl.gz", b"", b" \r\n\t ", "[]"),
        ("rows.jsonl.gz", b'{"a": 1}\n', b"\n", "[(1, '')]"),
        ("rows.json.gz", b"", b"\n", "[(1, 'not-json')]"),
        ("rows.csv.gz", b"", b"\n", "[]"),
        ("rows.csv.gz", b"a,b\n", b"\n", "[]"),
        ("rows.csv.gz", b"a,b\n1,2\n", b"\r\n", "[(1, '')]"),
    ],
    ids=range(7),
)
def test_blank_lines_without_end_are_no_rows(tmp_path, name, before, blank, seen):
    swelling(tmp_path / name, before, blank)
    peak, found = peak_of(tmp_path / name)
    assert (found, peak < 160) == (seen, True)


INSPECTED = """
import sys
from pathlib import Path
from armorm.data.inspect import inspect
from armorm.data.opening import Request, open_source
from armorm.data.validate import validate
asked = Request(sys.argv[1])
kept = validate(open_source(asked)).kept, inspect(open_source(asked)).counts.rows
print(*kept, int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024)
"""
TURN = {"plain": "word by word " * 80_000, "wide": "das tät’ 了 " * 90_000}
"""About a MB."""


def long_row(turns, text, kind):
    """A row of so many MB, within the limit of a question and its answer."""
    talk = [{"role": ("user", "assistant")[i % 2], "content": f"{i} {text}"} for i in range(turns)]
    talk = [*talk, {"role": "user", "content": "Why?"}]
    if kind == "pairs":
        return {"prompt": talk, "chosen": text, "rejected": f"{text}!"}
    return {"messages": [*talk, {"role": "assistant", "content": text}], "quality": 3}


@linux
@pytest.mark.parametrize(
    ("letters", "ending", "kind", "most"),
    [
        ("wide", "jsonl.gz", "pairs", 12),
        ("plain", "json", "ratings", 12),
        ("wide", "csv", "pairs", 24),
        ("plain", "parquet", "ratings", 20),
    ],
    ids=lambda one: str(one),
)
def test_a_row_of_ten_megabytes_takes_a_small_multiple_of_itself(tmp_path, letters, ending, kind, most):
    (tmp_path / "objectives.json").write_text('[{"name": "quality", "min": 0, "max": 4}]')
    peaks = []
    for turns, text in ((2, "a"), (8, TURN[letters])):
        row, path = long_row(turns, text, kind), tmp_path / f"rows-{turns}.{ending}"
        line = json.dumps(row, ensure_ascii=False)
        if ending == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        elif ending == "csv":
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([row, [v if isinstance(v, str | int) else json.dumps(v) for v in row.values()]])
        else:
            data = (f"[{line}]" if ending == "json" else f"{line}\n").encode()
            path.write_bytes(gzip.compress(data, 1) if ending.endswith("gz") else data)
        done = subprocess.run([sys.executable, "-c", INSPECTED, str(path)], capture_output=True, text=True, check=True)
        *kept, peak = done.stdout.split()
        assert kept == ["1", "1"], done.stdout
        peaks.append(float(peak))
    size = len(line.encode()) / 2**20
    assert size > 8
    assert peaks[1] - peaks[0] < most * size  # found: 8, 7, 17 and 12 times
