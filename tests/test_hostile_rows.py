"""Bytes of any kind, thrown at every reader of rows: what comes out is rows, named faults or errors of ours."""

from __future__ import annotations

import gzip
import io
import json
import random
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from armorm.data.answer_rows import answer_rows
from armorm.data.files import REMEDIES, BadRecord, records
from armorm.data.inspect import inspect
from armorm.data.opening import Request, open_source
from armorm.data.row_writing import write_rows
from armorm.data.shapes import RowFault, read_texts
from armorm.data.validate import validate
from armorm.errors import ArmormError

TURNS = [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": "Seven."}]
ROWS = [
    {"id": "a", "messages": TURNS, "quality": 3, "safe": True},
    {"id": "b", "prompt": "Name a prime.", "response": "Nine.", "quality": "1"},
    {"prompt": TURNS[:1], "responses": ["Seven.", "Eight."]},
    {"prompt": "Name two.", "chosen": "2, 3", "rejected": "4"},
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "quality": None},
]
PIECES = (
    *(
        "NaN",
        "-Infinity",
        "1e999",
        "9" * 5000,
        '"\\ud800"',
        "\x00",
        "\ufeff",
        "\r",
        "\n",
        "\n\n",
        ",",
        ":",
        "[",
        "]",
        "{",
        "}",
        '"',
    ),
    *(
        "[" * 150,
        '{"a":' * 150,
        '{"id": 1, "id": 2}',
        "null",
        "true",
        "1_0",
        "５",
        " 5 ",
        "0x10",
        '"messages"',
        '"prompt"',
        "'role'",
    ),
)
ENDINGS = ("jsonl", "jsonl.gz", "json", "json.gz", "csv", "csv.gz", "parquet")


def whole(ending: str) -> bytes:
    kind = ending.removesuffix(".gz")
    if kind == "parquet":
        table, out = pa.table({"prompt": ["Q", "R"], "response": ["A", "B"], "quality": [1.0, 2.0]}), io.BytesIO()
        pq.write_table(table, out)
        return out.getvalue()
    if kind == "csv":
        return b'id,prompt,response,quality\na,Q,A,1\nb,"R, too","B\n",2\n'
    if kind == "json":
        return json.dumps(ROWS, indent=1).encode()
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def spoilt(ending: str, seed: int) -> bytes:
    """A good file with a few of its bytes cut, turned, doubled, or replaced by something odd."""
    draw, data = random.Random(seed), bytearray(whole(ending))
    for _ in range(draw.randint(0, 4)):
        place = draw.randrange(len(data) + 1)
        way = draw.randrange(5)
        if way == 0:
            data[place:place] = draw.choice(PIECES).encode()
        elif way == 1:
            del data[place : place + draw.randint(1, 30)]
        elif way == 2 and place < len(data):
            data[place] = draw.randrange(256)
        elif way == 3:
            data[place:place] = data[place : place + draw.randint(1, 80)]
        elif place > 1:
            del data[place:]
    out = gzip.compress(bytes(data)) if ending.endswith(".gz") else bytes(data)
    return out[: draw.randrange(len(out))] if ending.endswith(".gz") and draw.random() < 0.2 and out else out


def read_in_every_way(path: Path) -> None:
    for ask in (
        lambda: [_read(one) for cells in ("auto", "messages", "text") for one in records(path, cells)],
        lambda: list(answer_rows(records(path))),
        lambda: validate(open_source(Request(str(path)))),
        lambda: validate(open_source(Request(str(path), kind="pairs"))),
        lambda: inspect(open_source(Request(str(path)))),
    ):
        said = ""
        try:
            ask()
        except ArmormError as error:
            said = str(error)
        assert len(said.encode()) < 3000


def _read(one) -> None:
    if isinstance(one, BadRecord):
        assert one.fault in REMEDIES
        return
    for kind in (None, "one", "pair"):
        assert len(_said(one.values, kind)) < 1000


def _said(values, kind=None) -> str:
    try:
        faults = read_texts(values, kind=kind).faults
    except RowFault as fault:
        faults = (fault,)
    return max((fault.sentence for fault in faults if fault is not None), key=len, default="")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_spoilt_file_is_no_crash(tmp_path, ending):
    for seed in range(10):
        path = tmp_path / f"rows-{seed}.{ending}"
        path.write_bytes(spoilt(ending, seed))
        read_in_every_way(path)


CELLS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "user", "\ud800", "[", "{}", "\x00", *PIECES[:4]]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "from", "value", "type"]), inner)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(["messages", "prompt", "response", "responses", "chosen", "rejected", "system", "tools", "id", "quality"])
NUMBER = count()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(NAMES | st.text(max_size=3), CELLS, max_size=4), min_size=1, max_size=3))
def test_rows_of_any_values_are_no_crash(tmp_path, rows):
    path = tmp_path / f"{next(NUMBER)}.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read_in_every_way(path)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_what_was_read_can_be_written_and_read_again(tmp_path, ending):
    def nested(levels):
        return [nested(levels - 1)] if levels else 1

    odd = {"half \ud800": 1} if ending == "parquet" else {}
    rows = [{"a": nested(60), **odd, "half": "\ud800", "b": {"c": nested(30)}, "n": 10**400}, {"a": nested(2)}]
    path = tmp_path / f"rows.{ending}"
    assert write_rows(rows, path) == 2
    first, second = ({k: v for k, v in r.values.items() if v is not None} for r in records(path) if not isinstance(r, BadRecord))
    assert (first["a"], first["b"], second) == (rows[0]["a"], rows[0]["b"], {"a": nested(2)})


def test_a_long_value_is_not_repeated_in_full():
    name = "n" * 10**5
    for values in ({"id": 1, "messages": [{"role": name, "content": "a"}]}, {"prompt": "a", "response": [{name: 1}]}, {name: 1}):
        assert 20 < len(_said(values)) < 700
