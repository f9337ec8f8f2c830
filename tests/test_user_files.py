"""Whatever a person's path leads to is a file that is read, or an error of ours at once."""

from __future__ import annotations

import gzip
import os
import socket
from pathlib import Path

import pytest

from armorm.data.files import expand, fingerprint, records
from armorm.data.opening import Request, open_source
from armorm.errors import ArmormError, BackboneError, CheckpointError, DataError, RecipeError
from armorm.features.backbone import _template
from armorm.jobs.score_file import count_rows
from armorm.model.folder import local
from armorm.model.layouts.public_parts import _tensors
from armorm.objectives import Objectives
from armorm.rivals.judge.template import template_of
from armorm.user_files import shown, user_path

ODD = ("pipe", "socket", "device", "loop", "link", "folder", "nothing", "nul", "long", "under-a-file", "closed")


@pytest.fixture
def odd(tmp_path):
    """Makes a path of a kind, with an ending."""

    def make(kind: str, ending: str) -> Path:
        path = tmp_path / f"{kind}{ending}"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(path))
        elif kind == "device":
            path.symlink_to("/dev/zero")
        elif kind == "loop":
            path.symlink_to(path)
        elif kind == "link":
            path.symlink_to(tmp_path / "gone")
        elif kind == "folder":
            path.mkdir()
        elif kind == "nul":
            path = tmp_path / f"a\0b{ending}"
        elif kind == "long":
            path = tmp_path / ("x" * 5000 + ending)
        elif kind == "under-a-file":
            (tmp_path / "plain").write_text("")
            path = tmp_path / "plain" / f"rows{ending}"
        elif kind == "closed":
            path.write_text("{}")
            path.chmod(0)
            if os.access(path, os.R_OK):
                pytest.skip("root reads everything")
        return path

    return make


OPENERS = {
    "rows": (".jsonl", lambda p: list(records(p)), DataError),
    "zipped": (".json.gz", lambda p: list(records(p)), DataError),
    "cells": (".csv", lambda p: list(records(p)), DataError),
    "table": (".parquet", lambda p: list(records(p)), DataError),
    "pattern": (".jsonl", lambda p: expand(str(p)), DataError),
    "source": (".jsonl", lambda p: open_source(Request(str(p))), DataError),
    "digest": (".jsonl", fingerprint, DataError),
    "objectives": (".json", Objectives.from_file, DataError),
    "chat template": (".jinja", _template, BackboneError),
    "judge's template": (".txt", lambda p: template_of("own", p), RecipeError),
    "part": (".pt", _tensors, CheckpointError),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_is_refused_at_once(odd, opener, kind):
    ending, read, error = OPENERS[opener]
    with pytest.raises(error) as refused:
        read(odd(kind, ending))
    assert len(str(refused.value)) < 900
    assert str(refused.value).isprintable()


def test_what_a_path_leads_to_is_said(odd):
    said = {}
    for kind in ("pipe", "socket", "device", "folder", "nothing", "link"):
        with pytest.raises(DataError) as refused:
            records(odd(kind, ".jsonl"))
        said[kind] = str(refused.value).partition(".jsonl: ")[2]
    assert {kind: text.partition(":")[0].partition(",")[0] for kind, text in said.items()} == {
        "pipe": "is a pipe",
        "socket": "is a socket",
        "device": "is a device",
        "folder": "is a folder",
        "nothing": "no such file",
        "link": "is a link to nothing",
    }


def test_a_name_that_is_no_utf8_is_read_and_shown(tmp_path):
    name = os.fsdecode(b"r\xff\n.jsonl")
    (tmp_path / name).write_text('{"a": 1}\n[')
    (path,) = expand(str(tmp_path / "*.jsonl"))
    assert [record.row for record in records(path)] == [1, 2]
    assert shown(path).endswith("r\\udcff\\n.jsonl")
    with pytest.raises(DataError) as refused:
        records(path.with_name(os.fsdecode(b"s\xff.jsonl")))
    str(refused.value).encode()


@pytest.mark.parametrize("kind", ["pipe", "device", "loop", "nothing", "nul", "long", "under-a-file"])
def test_a_model_that_is_no_folder_is_refused_at_once(odd, kind):
    with pytest.raises(CheckpointError) as refused:
        local(str(odd(kind, "")))
    assert len(str(refused.value)) < 900


@pytest.mark.parametrize("name", ["~nobody9/x.jsonl", "~nobody9"])
def test_a_user_who_is_not_there_is_named(name):
    for ask in (expand, user_path, lambda n: open_source(Request(n))):
        with pytest.raises(ArmormError, match=r"nobody9|home directory"):
            ask(name)


def test_a_working_folder_that_is_gone_is_no_crash(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    try:
        with pytest.raises(DataError, match="relative paths start at a working folder that is gone"):
            expand("rows*.jsonl")
    finally:
        os.chdir(tmp_path)


def test_objectives_that_are_no_json_are_named(tmp_path):
    path = tmp_path / "objectives.json"
    for text, fault in (("[", "not-json"), ("[" * 200 + "]" * 200, "too-deep"), ('[{"name": "a", "name": "b"}]', "repeated-key")):
        path.write_text(text)
        with pytest.raises(DataError, match=f"not JSON .{fault}"):
            Objectives.from_file(path)


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("rows.parquet", b"PAR1 no table"),
        ("rows.jsonl.gz", b"no gzip"),
        ("rows.jsonl.gz", gzip.compress(b"{}\n" * 9, mtime=0)[:-9]),
        ("rows.jsonl.gz", gzip.compress(b"{}\n" * 9, mtime=0)[:10] + b"\xff" * 9),
    ],
)
def test_a_damaged_file_has_a_size_for_the_bar(tmp_path, name, damaged):
    path = tmp_path / name
    path.write_bytes(damaged)
    assert count_rows(path) == 1
