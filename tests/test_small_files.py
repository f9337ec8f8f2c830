"""Settings on disk: what YAML and JSON are read as, and what no file can do to the reader."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest

from armorm.errors import ArmormError, DataError, RecipeError
from armorm.objectives import Objectives
from armorm.recipe import load_recipe
from armorm.scoring.profile import Profile
from armorm.small_files import LARGEST, read_json, read_yaml, yaml_text

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def text_file(folder: Path, content: str | bytes, name: str = "x.yaml") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2020-13-45", "2020-13-45"),
        ("2020-01-01", "2020-01-01"),
        ("12:30", "12:30"),
        ("010", "010"),
        ("1_000", "1_000"),
        ("0x1F", "0x1F"),
        ("12", 12),
        ("-0.5", -0.5),
        ("1e-3", 0.001),
        ("yes", True),
        ("off", False),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("'12'", "12"),
        ("!!str 12", "12"),
        ("=", "="),
        ("[a, {b: c}]", ["a", {"b": "c"}]),
    ],
)
def test_bare_words_are_what_they_look_like(written: str, read: Any, tmp_path: Path):
    found = read_yaml(text_file(tmp_path, f"x: {written}\n"), "recipe")["x"]
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    "value",
    ["1e-3", "yes", "no", "2020-01-01", "010", "", "~", "1_0", "=", "<<", ".5", 1e-3, 1e300, True, None, "é\nb", [1, {"a": "1"}]],
)
def test_what_is_written_is_read_back(value: Any, tmp_path: Path):
    twice = {"x": value, "y": [value, value]}
    assert read_yaml(text_file(tmp_path, yaml_text(twice)), "recipe") == twice


def test_ordinary_aliases_are_read(tmp_path: Path):
    path = text_file(tmp_path, "a: &x {cap: 3}\nb: [*x, *x]\n")
    assert read_yaml(path, "recipe") == {"a": {"cap": 3}, "b": [{"cap": 3}, {"cap": 3}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LAUGHS, r"line 1: .*more than 50,000 values"),
        ("ratings: &r [*r]", r"line 1: .*holds itself"),
        ("a: &a {b: *a}", r"line 1: .*holds itself"),
        ("a: &a " + "x" * 400_000 + "\nb: [*a, *a, *a]", r"line 1: .*repeat more than"),
        ("[" * 5000, r"line 1: .*nested more than"),
        ("{a: " * 3000, r"line 1: .*nested more than"),
        ("- " * 3000, r"line 1: .*nested more than"),
        ("x: [" + "1," * 60_000 + "]", r"more than 50,000 values"),
        ("a: 1\nseed: " + "9" * 6000, r"line 2: .*6,000 digits"),
        ("a: 1\na: 2", r"line 2: .*'a' stands twice"),
        ("a: {b: 1, b: 2}", r"line 1: .*'b' stands twice"),
        ("? !!binary aGk=\n: 1", r"line 1: .*!!?binary|line 1: .*binary"),
        ("1: x", r"line 1: .*put it in quotes"),
        ("yes: x", r"line 1: .*put it in quotes"),
        ("? [a]\n: 1", r"line 1: .*a key is a text"),
        ("a: !!set {x}", r"line 1: the tag|line 1: .*tag"),
        ("a: !!python/object/apply:os.system ['touch pwned']", r"line 1: .*tag"),
        ("a: !mine x", r"line 1: .*tag"),
        ('\n\na: "\\0"', r"line 3: .*NUL"),
        ('a: "\\ud800"', r"line 1: .*half a letter"),
        ('a: "\\UFFFFFFFF"', r"line 1: is not YAML"),
        (b"a: 1\nb: \x00", r"line 2: .*control character"),
        (b"a: 1\nb: \xff", r"line 2: is not UTF-8"),
        (b"\xff\xfea\x00", r"line 1: is not UTF-8"),
        ("a: b: c", r"line 1: is not YAML"),
        ("a: [", r"line 1: is not YAML"),
        ("a: 1\n---\nb: 2", r"line 2: is not YAML"),
        ("*x", r"line 1: is not YAML"),
        ("x" * (LARGEST + 1), r"larger than 1,000,000 bytes"),
    ],
    ids=lambda v: repr(v)[:40],
)
def test_files_that_ask_for_more_than_a_recipe_are_refused_at_once(content: str | bytes, said: str, tmp_path: Path):
    path, start = text_file(tmp_path, content), time.perf_counter()
    for read in (load_recipe, Profile.from_yaml):
        with pytest.raises(RecipeError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert len(str(caught.value)) < 1500
    assert time.perf_counter() - start < 60
    assert not (tmp_path / "pwned").exists()


def test_what_is_no_regular_file_is_never_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    places = [
        tmp_path,
        tmp_path / "fifo",
        tmp_path / "loop",
        Path("/dev/zero"),
        Path("a\0b"),
        Path("x" * 5000),
        tmp_path / "none",
    ]
    for place in places:
        for read, error in ((load_recipe, RecipeError), (Profile.from_yaml, RecipeError), (Objectives.from_file, DataError)):
            with pytest.raises(error) as caught:
                read(place)
            assert len(str(caught.value)) < 600


def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path):
    assert read_yaml(text_file(tmp_path, "\ufeffa: 1"), "recipe") == {"a": 1}
    assert read_json(text_file(tmp_path, '\ufeff{"a": 1}'), "file") == {"a": 1}


@pytest.mark.parametrize(
    "content",
    ["", "{", "[" * 100_000, '{"a": NaN}', '{"a": Infinity}', '{"a": 1, "a": 2}', "9" * 6000, b"\xff", "1" * (LARGEST + 1)],
    ids=lambda v: repr(v)[:20],
)
def test_json_that_is_none(content: str | bytes, tmp_path: Path):
    with pytest.raises(ArmormError, match=r"x\.yaml") as caught:
        read_json(text_file(tmp_path, content), "file", error=DataError)
    assert isinstance(caught.value, DataError)
