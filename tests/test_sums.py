"""The list of a folder's files: what is ours, whether it is as it was written."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from armorm.errors import CheckpointError, DataError
from armorm.sums import NAME, check_sums, faults_of, listing, read_sums, require_ours, write_sums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "ü b.bin").write_bytes(bytes(range(200)))
    write_sums(tmp_path)
    return tmp_path


def test_the_list_is_what_sha256sum_reads(folder: Path):
    assert set(read_sums(folder)) == {"a.json", "below/ü b.bin"}
    done = subprocess.run(["sha256sum", "-c", "--strict", NAME], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_is_missing_cut_or_changed_is_named(folder: Path):
    assert not list(faults_of(folder))
    (folder / "a.json").unlink()
    (folder / "below" / "ü b.bin").write_bytes(bytes(range(199)))
    assert dict(faults_of(folder)) == {"a.json": "is missing", "below/ü b.bin": "damaged (it is not as it was written)"}
    with pytest.raises(CheckpointError, match=r"a\.json: is missing: make it again"):
        check_sums(folder, remedy="make it again")


def test_no_bit_of_the_list_and_no_cut_goes_unseen(folder: Path):
    whole = (folder / NAME).read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        (folder / NAME).write_bytes(data)
        assert list(faults_of(folder)), bit
    for end in range(len(whole)):
        (folder / NAME).write_bytes(whole[:end])
        assert list(faults_of(folder)), end


def test_a_file_that_is_not_listed_is_never_replaced(tmp_path: Path):
    (tmp_path / "results.json").write_text("mine")
    for attempt in (lambda: require_ours(tmp_path, ["results.json"]), listing(tmp_path, ["results.json"]).__enter__):
        with pytest.raises(DataError, match=r"results\.json: is there already, and no SHA256SUMS says"):
            attempt()
    assert (tmp_path / "results.json").read_text() == "mine"
    (tmp_path / "results.json").unlink()
    (tmp_path / "results.json").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is there already"):
        require_ours(tmp_path, ["results.json"])


def test_a_block_that_is_stopped_may_be_repeated(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    stopped = listing(tmp_path, ["a", "b", "never"])
    stopped.__enter__()
    (tmp_path / "a").write_text("1")
    assert not stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert dict(faults_of(tmp_path))["a"] == "is not finished (the run that wrote it was stopped)"
    with listing(tmp_path, ["a", "b", "never"]):
        (tmp_path / "a").write_text("2")
        (tmp_path / "b").write_text("3")
    assert set(read_sums(tmp_path)) == {"a", "b"}
    assert not list(faults_of(tmp_path))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_random_flips_of_the_files_are_all_seen(folder: Path):
    draw = np.random.default_rng(0)
    for _ in range(200):
        file = folder / ("a.json" if draw.random() < 0.2 else "below/ü b.bin")
        whole = file.read_bytes()
        data = bytearray(whole)
        data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
        file.write_bytes(data)
        assert [name for name, _ in faults_of(folder)] == [file.relative_to(folder).as_posix()]
        file.write_bytes(whole)
