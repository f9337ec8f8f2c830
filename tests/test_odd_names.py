"""Files and folders of any name among those that the package writes: what it does goes on, and they stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_features_answers as store
from small_run import write_lines, write_recipe
from test_features_answers import decoder as decoder
from test_scoring_files import Counting, simple_rows
from test_scoring_files import run as score
from test_scoring_files import small_windows as small_windows

from armorm.owner import owning_folder
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.train import Run, train

FAR = "99999999999999999999"
NAMES = (
    "note.part",
    f"x.{FAR}.part",
    ".part",
    f"x.1.{FAR}.part",
    "x.1.-1.before",
    ".before",
    ".shard-x.lock",
    "a .lock",
    "x.parts",
)
OURS = ("shard-00001-of-00003.safetensors", "manifest.json", "texts.parquet")
KINDS = ("file", "empty", "folder", "link")


def put(place: Path, kind: str) -> None:
    if kind == "folder":
        place.mkdir()
        (place / "inside").write_text("mine")
    elif kind == "link":
        place.symlink_to("nowhere")
    else:
        place.write_text("mine" if kind == "file" else "")


def state(place: Path) -> object:
    if place.is_symlink():
        return place.readlink()
    return (place / "inside").read_text() if place.is_dir() else place.read_text()


def put_all(folder: Path, names: tuple[str, ...], kind: str) -> dict[Path, object]:
    for name in names:
        put(folder / name, kind)
    return {folder / name: state(folder / name) for name in names}


@pytest.mark.parametrize("kind", KINDS)
def test_an_extraction_that_was_stopped_goes_on_among_odd_names(tmp_path, decoder, monkeypatch, kind):
    whole = store.result_bytes(store.stored(tmp_path / "whole", store.rated(), decoder).folder)
    with monkeypatch.context() as patched:
        store.failing_extract(patched, 2, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            store.stored(tmp_path / "run", store.rated(), decoder)
    (home,) = (tmp_path / "run").iterdir()
    of_ours = [f"{name}{end}" for name in OURS for end in (".part", f".1.{FAR}.part", ".note.before")]
    odd = (*NAMES, *of_ours, "shard-9.safetensors", ".shard-00007-of-00003.safetensors.lock", "labels-x.parquet")
    there = put_all(home, odd, kind)
    calls = store.failing_extract(monkeypatch, 99, None)
    store.stored(tmp_path / "run", store.rated(), decoder)
    assert len(calls) == 2  # the first shard is not computed again
    assert {place: state(place) for place in there} == there
    assert {f.name: f.read_bytes() for f in home.iterdir() if f not in there and f.name != "timings.jsonl"} == whole


def test_the_lock_of_a_killed_process_goes_and_what_is_called_so_stays(tmp_path, decoder):
    home = store.stored(tmp_path, store.rated(), decoder).folder
    (home / "manifest.json").unlink()
    left, foreign = (home / f".shard-0000{i}-of-00003.safetensors.lock" for i in (0, 1))
    left.write_text("")
    foreign.write_text("mine")
    store.stored(tmp_path, store.rated(), decoder)
    assert (left.exists(), foreign.read_text()) == (False, "mine")


def test_the_lock_of_a_process_that_was_killed_when_all_was_done_goes_too(tmp_path, decoder):
    home = store.stored(tmp_path, store.rated(), decoder).folder
    (home / ".lock").write_text("")
    store.stored(tmp_path, store.rated(), decoder)
    assert not (home / ".lock").exists()
    (home / ".lock").write_text("mine")
    store.stored(tmp_path, store.rated(), decoder)
    assert (home / ".lock").read_text() == "mine"
    (home / ".lock").unlink()
    with owning_folder(home):
        store.stored(tmp_path, store.rated(), decoder)
        assert (home / ".lock").exists()
    assert not (home / ".lock").exists()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_run_goes_on_among_odd_names(copied: Path, run: Run, rows: Path, tiny_folder: Path, kind: str):
    for file in (copied / "report").iterdir():
        if file.name == "results.json":
            file.unlink()
    there: dict[Path, object] = {}
    for folder in (copied, copied / "features", copied / "gate", copied / "report"):
        there |= put_all(folder, (*NAMES, f"report.1.{FAR}.part", "report.part", "report.note.before"), kind)
    again = train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=Reporter(quiet=True))
    assert again.computed == ("report",)
    assert {place: state(place) for place in there} == there


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "parquet"])
def test_a_scoring_goes_on_among_odd_names(tmp_path: Path, small_windows: None, ending: str, kind: str):
    write_lines(tmp_path / "rows.jsonl", simple_rows(40))
    out = tmp_path / "out" / f"out.{ending}"
    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "rows.jsonl", out, Counting(3))
    ours = [
        f"{out.name}{end}" for end in (".note.part", f".1.{FAR}.part", ".progress.json.part", f".progress.json.1.{FAR}.before")
    ]
    there = put_all(out.parent, (*NAMES, *ours), kind)
    assert score(tmp_path / "rows.jsonl", out).resumed == 24
    score(tmp_path / "rows.jsonl", tmp_path / f"whole.{ending}")
    assert out.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()
    assert {place: state(place) for place in there} == there
    assert set(out.parent.iterdir()) == {*there, out, out.with_name(f"{out.name}.progress.json")}
