"""`armorm verify`: every file that was written is covered, and no flip, cut or missing file goes unseen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_run import Armorm, write_recipe

from armorm.errors import DataError
from armorm.jobs.verify import verify
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.train import STAGES, Run, train

NOT_A_RESULT = {"timings.jsonl"}
QUIET = Reporter(quiet=True)


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and file.name not in NOT_A_RESULT)


def test_a_run_is_whole_and_every_place_is_checked(run: Run):
    found = verify(run.folder)
    assert found.whole
    kinds = {one.place: one.kind for one in found.checked}
    assert kinds["."] == "run"
    assert {kinds[stage] for stage in STAGES} == {"stage", "model"}
    assert [kind for place, kind in kinds.items() if place.startswith("features/")] == ["store"] * 4


def test_no_flip_no_cut_and_no_missing_file_goes_unseen(copied: Path):
    draw, files = np.random.default_rng(0), files_of(copied)
    assert len(files) > 60
    silent = []
    for i, file in enumerate(files):
        whole = file.read_bytes()
        data = bytearray(whole)
        data[int(draw.integers(len(data)))] ^= 1 << int(draw.integers(8))
        for harm, spoilt in (("flip", bytes(data)), ("cut", whole[: int(draw.integers(len(whole)))]), ("remove", None)):
            if spoilt is None:
                file.unlink()
            else:
                file.write_bytes(spoilt)
            places = [one for one in verify(copied).checked if one.faults]
            if not any(file.name in fault.file or file.name in fault.fault for one in places for fault in one.faults):
                silent.append((harm, file.relative_to(copied)))
        file.write_bytes(whole)
        assert i or verify(copied).whole
    assert not silent


def test_an_unfinished_run_is_not_called_whole(tmp_path: Path, rows: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("armorm.run.train.fit_gate_stage", stop)
    with pytest.raises(KeyboardInterrupt):
        train(load_recipe(write_recipe(rows, tiny_folder)), tmp_path / "run", reporter=QUIET)
    (fault,) = [fault for one in verify(tmp_path / "run").checked for fault in one.faults]
    assert (fault.file, fault.fault) == ("SHA256SUMS", "is missing: the run is not finished")


def test_a_folder_without_anything_of_ours_is_refused(tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds nothing that armorm keeps digests of"):
        verify(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        verify(tmp_path / "none")


def test_score_files_are_checked_beside_their_progress(copied: Path, rows: Path, tmp_path: Path, armorm: Armorm):
    out = tmp_path / "scores" / "out.jsonl"
    code, _, said = armorm("score", copied / "model", rows / "pairs.jsonl", "--out", out, "--quiet")
    assert code == 0, said
    assert armorm("verify", out.parent)[0] == 0
    out.write_bytes(out.read_bytes()[:-1])
    code, told, _ = armorm("verify", out.parent, "--json")
    assert code == 2
    (checked,) = json.loads(told)["checked"]
    assert checked["kind"] == "scores"
    assert "is not as it was written" in checked["faults"][0]["fault"]
    code, told, _ = armorm("verify", out.parent)
    assert code == 2
    assert "damaged" in told
    code, _, said = armorm("score", copied / "model", rows / "pairs.jsonl", "--out", out, "--quiet")
    assert code == 2
    assert "is not as it was written" in said
