"""Files are whole or not there, whoever else writes the same one."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, get_ident
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save as save_torch

from armorm.disk import (
    digest_of,
    hash_files,
    load_part,
    passing_folder,
    read_sealed,
    save_part,
    storage_errors,
    write_json,
    write_sealed,
    writing,
    writing_folder,
)
from armorm.errors import CheckpointError, DataError, StorageError
from armorm.features.answers import FORMAT as STORES
from armorm.features.answers import MANIFEST, open_answers


def test_threads_that_write_one_file_at_once_leave_it_whole(tmp_path: Path):
    place, together = tmp_path / "facts.json", Barrier(4)

    def write(n: int) -> None:
        with writing(place) as beside:
            beside.write_text(f"{n}" * 1000)
            together.wait()  # all are writing now

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert place.read_text() in {f"{n}" * 1000 for n in range(4)}
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def gone() -> int:
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_what_a_killed_process_left_goes_with_the_next_attempt_and_nothing_else_does(tmp_path: Path):
    dead, own, done = gone(), os.getpid(), Event()
    with ThreadPoolExecutor(1) as other:
        thread = other.submit(get_ident).result()
        other.submit(done.wait)
        _only_what_is_left_goes(tmp_path, dead, own, thread)
        done.set()


def _only_what_is_left_goes(tmp_path: Path, dead: int, own: int, thread: int) -> None:
    left = [f"facts.json.1.{dead}.part", f"facts.json.2.{dead}.before", f"facts.json.1.{own}.part", f"facts.json.1.{own}.before"]
    kept = [
        f"facts.json.{thread}.{own}.part",  # is being written
        f"other.json.1.{dead}.part",  # another file's
        "facts.json.part",
        "facts.json.note.part",
        f"facts.json.{dead}.part",
        "facts.json.1.99999999999999999999.part",
        "facts.json.1.-1.part",
    ]
    for name in (*left, *kept, "facts.json"):
        (tmp_path / name).write_text(name)
    write_json(tmp_path / "facts.json", {"is": 1})
    assert {file.name for file in tmp_path.iterdir()} == {*kept, "facts.json"}


def test_a_folder_that_was_aside_when_its_process_was_killed_is_put_back(tmp_path: Path):
    aside = tmp_path / f"model.1.{gone()}.before"
    aside.mkdir()
    (aside / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt), writing_folder(tmp_path / "model"):
        raise KeyboardInterrupt
    assert (tmp_path / "model" / "weights").read_text() == "old"
    with writing_folder(tmp_path / "model") as beside:
        (beside / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_is_stopped_between_its_two_names_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("old")
    rename = Path.replace

    def stopped(place: Path, to: Path) -> Path:
        found = rename(place, to)
        if str(to).endswith(".before"):
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt), writing_folder(tmp_path / "model") as beside:
        (beside / "weights").write_text("new")
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_new_folder_takes_no_place_that_was_filled_meanwhile(tmp_path: Path):
    def late() -> None:
        with writing_folder(tmp_path / "model", new=True) as beside:
            (beside / "weights").write_text("ours")
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "thesis.txt").write_text("mine")

    with pytest.raises(DataError, match="came there while it was made, and stays"):
        late()
    assert [file.name for file in tmp_path.rglob("*.txt")] == ["thesis.txt"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
    (tmp_path / "empty").mkdir()
    with writing_folder(tmp_path / "empty", new=True) as beside:
        (beside / "weights").write_text("ours")
    assert (tmp_path / "empty" / "weights").read_text() == "ours"


@pytest.mark.parametrize("said", ["No space left on device (os error 28)", "IO error: Disk quota exceeded"])
def test_a_full_disk_is_found_in_any_librarys_error(tmp_path: Path, said: str):
    with pytest.raises(StorageError, match="the disk is full"), storage_errors(tmp_path):
        raise Exception(said)
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        _ = 1 / 0


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_files_have_the_rights_that_the_umask_leaves(tmp_path: Path, mask: int):
    before = os.umask(mask)
    try:
        save_part(tmp_path, "part", {"a": np.zeros(3)}, {}, 1)
        with writing_folder(tmp_path / "folder") as beside:
            save_file({"a": np.zeros(3)}, beside / "a.safetensors")
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o666 & ~mask}
    assert len(files) == 3


def test_what_a_library_leaves_beside_a_file_goes_with_a_killed_process(tmp_path: Path):
    """safetensors writes to a passing file in the same folder, which a kill leaves there."""
    dies = (
        "import os, pathlib, sys; from armorm.disk import writing\n"
        "with writing(pathlib.Path(sys.argv[1])) as beside:\n"
        "    (beside.parent / '.tmpAbCd12').write_bytes(b'half'); beside.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", dies, str(tmp_path / "x.safetensors")], check=False).returncode == -9
    assert list(tmp_path.rglob(".tmp*"))
    with writing(tmp_path / "x.safetensors") as beside:
        save_file({"x": np.ones(2)}, beside)
    assert [at.name for at in tmp_path.rglob("*")] == ["x.safetensors"]


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("theirs", ["file", "folder", "link"])
def test_a_new_file_replaces_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, theirs: str):
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EOPNOTSUPP, "no links here")))
    place = tmp_path / "out.parquet"
    with writing(place, new=True) as beside:
        beside.write_text("ours")
    assert (place.read_text(), place.stat().st_nlink) == ("ours", 1)
    place.unlink()
    made = {"file": place.touch, "folder": place.mkdir, "link": lambda: place.symlink_to("nowhere")}

    def write() -> None:
        with writing(place, new=True) as beside:
            beside.write_text("ours")
            made[theirs]()

    with pytest.raises(DataError, match=r"out\.parquet: something of this name came there.* move it away and run this again"):
        write()
    assert [(at.name, at.is_dir(), at.is_symlink()) for at in tmp_path.iterdir()] == [
        (place.name, theirs == "folder", theirs == "link")
    ]


def test_a_new_folder_replaces_none_that_holds_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    place = tmp_path / "model"

    def write(theirs: bool) -> None:
        with writing_folder(place, new=True) as beside:
            (beside / "ours").touch()
            if theirs:
                place.mkdir()
                (place / "mine").touch()

    with pytest.raises(DataError, match="model: something of this name came there while it was made"):
        write(theirs=True)
    assert [at.name for at in tmp_path.rglob("*")] == ["model", "mine"]
    (place / "mine").unlink()
    write(theirs=False)
    assert [at.name for at in tmp_path.rglob("*")] == ["model", "ours"]
    (place / "ours").rename(place / "mine")
    monkeypatch.setattr("armorm.disk.require_free", lambda _folder: None)  # it comes behind the last look
    with pytest.raises(StorageError):
        write(theirs=False)
    assert [at.name for at in tmp_path.rglob("*")] == ["model", "mine"]


def test_what_breaks_while_it_is_written_leaves_what_was_there(tmp_path: Path):
    place = tmp_path / "facts.json"
    write_sealed(place, {"format": 1, "is": "whole"})
    before = place.read_bytes()
    try:
        with writing(place) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert place.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["facts.json"]


def test_a_passing_folder_goes_with_its_block(tmp_path: Path):
    place = tmp_path / "new" / "rows"

    def fail() -> None:
        with passing_folder(place) as folder:
            assert folder is not None
            (folder / "file").write_text("a")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert not list(tmp_path.iterdir()), "the folder around it was made for it"


def test_a_passing_folder_of_a_killed_process_goes_and_nothing_else_does(tmp_path: Path):
    parent = f"rows.1.{os.getppid()}.part"  # of a process that is at work
    for name in ("rows.1.9999999999.part", f"rows.1.{os.getpid()}.part", parent, "rows.mine", "rows"):
        (tmp_path / name).mkdir()
    with passing_folder(tmp_path / "rows") as folder:
        assert folder is not None
        assert {f.name for f in tmp_path.iterdir()} == {folder.name, parent, "rows.mine", "rows"}
    assert {f.name for f in tmp_path.iterdir()} == {parent, "rows.mine", "rows"}


def test_where_nothing_can_be_written_there_is_no_passing_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(self, *args, **more):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refused)
    with passing_folder(tmp_path / "rows") as folder:
        assert folder is None


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ({"tensors": None}, "`tensors` is a NoneType"),
        ({"tensors": 3}, "`tensors` is a int"),
        ({}, "no `tensors`"),
    ],
)
def test_a_seal_is_no_proof_of_what_is_sealed(tmp_path: Path, forged: dict[str, Any], said: str):
    save_part(tmp_path, "part", {"x": np.ones(2)}, {"objectives": []}, 2)
    write_sealed(tmp_path / "part.json", {"format": 2, "objectives": [], **forged})
    with pytest.raises(CheckpointError, match=rf"part\.json: does not hold what it should \({said}\): train again"):
        load_part(tmp_path, "part", 2, remedy="train again")


@pytest.mark.parametrize("text", [b"[" * 10**5, b"", b"\xff", b"[1]", b"1" * 5000])
def test_a_file_without_a_seal_is_damaged(tmp_path: Path, text: bytes):
    (tmp_path / "facts.json").write_bytes(text)
    with pytest.raises(CheckpointError, match=r"facts\.json: damaged: train again"):
        read_sealed(tmp_path / "facts.json", 2, remedy="train again")


@pytest.mark.parametrize(
    "stored",
    [{"x": torch.zeros(2, dtype=torch.bfloat16)}, {"x": torch.zeros(2).to(torch.float8_e4m3fn)}, b"abc", b""],
    ids=["bfloat16", "float8", "no safetensors", "empty"],
)
def test_a_part_whose_tensors_are_none_that_numpy_has_is_refused(tmp_path: Path, stored: Any):
    place = tmp_path / "part.safetensors"
    place.write_bytes(stored if isinstance(stored, bytes) else save_torch(stored))
    write_sealed(tmp_path / "part.json", {"format": 2, "tensors": hashlib.sha256(place.read_bytes()).hexdigest()})
    with pytest.raises(CheckpointError, match=r"part\.safetensors: does not hold what it should .*: train again"):
        load_part(tmp_path, "part", 2, remedy="train again")


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file that fails when it is read")
def test_a_file_that_fails_while_it_is_read_is_named(tmp_path: Path):
    (tmp_path / "a.json").symlink_to("/proc/self/mem")
    with pytest.raises(OSError, match=r"Input/output error: '.*a\.json'"):
        digest_of(tmp_path / "a.json")


def test_a_name_that_is_no_utf8_is_hashed(tmp_path: Path):
    try:
        (tmp_path / os.fsdecode(b"\xff.json")).write_bytes(b"x")
    except (OSError, UnicodeDecodeError):
        pytest.skip("names are UTF-8 here")
    h = hashlib.sha256()
    hash_files(h, tmp_path, lambda name: True)
    assert h.digest() == hashlib.sha256(b"\xff.json" + hashlib.sha256(b"x").digest()).digest()


@pytest.mark.parametrize("body", [b"}", b'"format": 2, "tensors": ', b'"format": 2, "x": ' + b"[" * 100_000])
def test_a_sealed_file_that_is_no_json_is_damaged(tmp_path: Path, body: bytes):
    seal = b'{\n "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'",\n'
    (tmp_path / "part.json").write_bytes(seal + body)
    with pytest.raises(CheckpointError, match=r"part\.json"):
        load_part(tmp_path, "part", 2, remedy="train again")


@pytest.mark.parametrize("field", MANIFEST)
def test_a_store_whose_manifest_lacks_a_field_is_refused(tmp_path: Path, field: str):
    facts = {"format": STORES, **{name: kind() for name, kind in MANIFEST.items()}}
    for wrong in ({}, {field: None}, {field: True}):
        write_sealed(tmp_path / "manifest.json", {**{k: v for k, v in facts.items() if k != field}, **wrong})
        with pytest.raises(CheckpointError, match=rf"manifest\.json: does not hold what it should \(.*`{field}`"):
            open_answers(tmp_path)
