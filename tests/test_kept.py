"""Kept values: they come back as they were, and what is not as it was written counts as not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from armorm.errors import DataError, StorageError
from armorm.kept import EARLIER, FORMAT, Kept, _line, kept_faults

VALUES = {"a": [0.1, None, -2e-17], "b": {"text": 'quoted ", "check": "0123456789abcdef"}', "in": 3}, "ü": "half \ud83d"}


def keep(path: Path) -> None:
    kept = Kept(path, "model")
    for name, value in VALUES.items():
        kept.add({name: value})


def test_what_was_kept_comes_back(tmp_path: Path):
    path = tmp_path / "deep" / "kept.jsonl"
    keep(path)
    assert Kept(path, "model").values == VALUES
    assert Kept(None, "model").values == {}
    head, *rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert (head["format"], head["key"], [list(row["values"]) for row in rows]) == (FORMAT, "model", [[name] for name in VALUES])


def test_what_was_added_together_comes_back_together_or_not_at_all(tmp_path: Path):
    path = tmp_path / "kept.jsonl"
    kept = Kept(path, "model")
    kept.add({"a": VALUES["a"], "b": VALUES["b"]})
    kept.add({"ü": VALUES["ü"]})
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    second = whole.index(b"\n", first) + 1
    for cut in (first + 1, (first + second) // 2, second - 1):
        path.write_bytes(whole[:cut])
        assert Kept(path, "model").values == {}
    path.write_bytes(whole[: second + 1])
    assert Kept(path, "model").values == {name: VALUES[name] for name in ("a", "b")}


def test_a_file_of_one_value_a_line_is_read_and_goes_on(tmp_path: Path):
    path = tmp_path / "kept.jsonl"
    lines = [_line({"format": EARLIER, "key": "model"}, ""), _line({"of": "a", "is": 1}, "model"), _line({"no": 2}, "model")]
    path.write_text("".join(f"{line}\n" for line in (*lines, _line({"values": [3]}, "model"))), encoding="utf-8")
    kept = Kept(path, "model")
    assert kept.values == {"a": 1}
    kept.add({"b": 2, "c": 3})
    assert Kept(path, "model").values == {"a": 1, "b": 2, "c": 3}


def test_any_flipped_bit_loses_its_own_line_and_no_other(tmp_path: Path):
    path = tmp_path / "kept.jsonl"
    keep(path)
    whole = path.read_bytes()
    starts = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    flips = 0
    for place in range(starts[0], starts[1] - 1):  # the line of the first value
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            assert Kept(path, "model").values == {name: VALUES[name] for name in ("b", "ü")}, (place, bit)
            flips += 1
    assert flips > 400
    again = Kept(path, "model")
    again.add({"a": VALUES["a"]})
    assert Kept(path, "model").values == VALUES


def test_a_line_that_was_cut_short_does_not_spoil_the_next(tmp_path: Path):
    path = tmp_path / "kept.jsonl"
    for cut in (1, 2, 30):
        path.unlink(missing_ok=True)
        keep(path)
        path.write_bytes(path.read_bytes()[:-cut])
        kept = Kept(path, "model")
        assert kept.values == {name: VALUES[name] for name in ("a", "b")}
        kept.add({"ü": VALUES["ü"]})
        assert Kept(path, "model").values == VALUES


def test_a_file_of_another_key_or_format_is_begun_anew(tmp_path: Path):
    path = tmp_path / "kept.jsonl"
    keep(path)
    assert Kept(path, "another").values == Kept(path, "another").values == {}
    for earlier in ('{"format": 1, "key": "model"}\n{"of": "a", "is": 1}\n', ""):
        path.write_text(earlier, encoding="utf-8")
        assert Kept(path, "model").values == {}
        assert json.loads(path.read_text(encoding="utf-8"))["format"] == FORMAT


def test_a_line_of_another_key_counts_as_not_there(tmp_path: Path):
    keep(tmp_path / "kept.jsonl")
    Kept(tmp_path / "other.jsonl", "another").add({"b": 99})
    one, other = ((tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("kept.jsonl", "other.jsonl"))
    (tmp_path / "mixed.jsonl").write_text("\n".join([*one, *other[1:]]) + "\n", encoding="utf-8")
    assert Kept(tmp_path / "mixed.jsonl", "model").values == Kept(tmp_path / "kept.jsonl", "model").values
    assert [line for line, _ in kept_faults(tmp_path / "mixed.jsonl")] == [len(one) + 1]
    assert not list(kept_faults(tmp_path / "kept.jsonl"))


@pytest.mark.parametrize("own", ["no JSON\n", '{"id": 1, "score": 0.5}\n', "\n{}\n"])
def test_a_file_of_somebody_elses_is_not_begun_anew(tmp_path: Path, own: str):
    path = tmp_path / "scores.jsonl"
    path.write_text(own, encoding="utf-8")
    with pytest.raises(DataError, match="was not written by armorm: move it away"):
        Kept(path, "model")
    assert path.read_text(encoding="utf-8") == own


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"kept\.jsonl: can't be written: .*; make room or choose another place"):
        Kept(tmp_path / "file" / "kept.jsonl", "model")
