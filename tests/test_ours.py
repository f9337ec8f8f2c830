"""Nothing of the user's is touched: whatever stands in the way of an output stays as it is, and the command says so."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from small_run import Armorm, write_recipe

from armorm.data.row_writing import write_rows
from armorm.errors import DataError
from armorm.progress import Reporter
from armorm.recipe import load_recipe
from armorm.run.train import STAGES, Run, train

QUIET = Reporter(quiet=True)


def state(folder: Path) -> dict[str, str]:
    """Every file below a folder, by its digest."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("name", [*(f"{stage}/precious.txt" for stage in STAGES), "recipe.yaml", "model/stage.txt", "report"])
def test_a_run_replaces_no_folder_and_no_recipe_of_somebody_elses(tmp_path: Path, rows: Path, tiny_folder: Path, name: str):
    place = tmp_path / "project" / name
    place.parent.mkdir(parents=True)
    place.write_text("mine")
    (tmp_path / "project" / "notes").mkdir()
    (tmp_path / "project" / "notes" / "own.txt").write_text("mine too")
    before = state(tmp_path / "project")
    with pytest.raises(DataError, match=r"is there already.*choose another folder"):
        train(load_recipe(write_recipe(rows, tiny_folder)), tmp_path / "project", reporter=QUIET)
    assert state(tmp_path / "project") == before


@pytest.mark.parametrize("own", ["", "{}", '{"stage": "build", "done": true}', '{\n "sha256": "none",\n'])
def test_a_stage_file_of_another_program_is_somebody_elses(tmp_path: Path, rows: Path, tiny_folder: Path, own: str):
    (tmp_path / "project" / "bench").mkdir(parents=True)
    (tmp_path / "project" / "bench" / "stage.json").write_text(own)
    before = state(tmp_path / "project")
    with pytest.raises(DataError, match="no stage\\.json says that a run wrote it"):
        train(load_recipe(write_recipe(rows, tiny_folder)), tmp_path / "project", reporter=QUIET)
    assert state(tmp_path / "project") == before


def test_a_recipe_that_was_edited_in_the_run_is_not_written_over(tmp_path: Path, copied: Path, rows: Path, tiny_folder: Path):
    recipe = load_recipe(write_recipe(rows, tiny_folder))
    (copied / "recipe.yaml").write_text((copied / "recipe.yaml").read_text() + "# my own remark\n")
    before = state(copied)
    with pytest.raises(DataError, match=r"recipe\.yaml: is there already and is not as armorm would have written it"):
        train(recipe, copied, reporter=QUIET)
    assert state(copied) == before


def test_own_files_in_a_stages_folder_are_carried_over(copied: Path, rows: Path, tiny_folder: Path):
    (copied / "report" / "notes").mkdir()
    (copied / "report" / "notes" / "own.txt").write_text("mine")
    (copied / "report" / "link").symlink_to("notes/own.txt")
    (copied / "report" / "report.md").unlink()
    assert train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET).computed == ("report",)
    assert (copied / "report" / "notes" / "own.txt").read_text() == "mine"
    assert (copied / "report" / "link").is_symlink()
    assert (copied / "report" / "report.md").is_file()


@pytest.mark.parametrize("harm", ["remove", "spoil"])
def test_own_files_are_carried_over_as_they_are_also_without_a_list(
    copied: Path, rows: Path, tiny_folder: Path, harm: str, capsys: pytest.CaptureFixture[str]
):
    home = copied / "report"
    (home / "token.txt").write_text("secret")
    (home / "token.txt").chmod(0o600)
    os.link(home / "token.txt", copied / "other name")
    (home / "empty" / "deep").mkdir(parents=True)
    os.mkfifo(home / "pipe")
    if harm == "remove":
        (home / "SHA256SUMS").unlink()
    else:
        (home / "SHA256SUMS").write_text((home / "SHA256SUMS").read_text() + "x")
    assert train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET).computed == ("report",)
    assert "SHA256SUMS" in "".join(capsys.readouterr().err.split())  # a quiet run tells of damage too
    assert (home / "token.txt").read_text() == "secret"
    assert (home / "token.txt").stat().st_mode & 0o777 == 0o600
    assert (home / "token.txt").samefile(copied / "other name")
    assert (home / "empty" / "deep").is_dir()
    assert (home / "pipe").is_fifo()


@pytest.mark.parametrize("place", [".", "bench"])
def test_a_list_of_somebody_elses_is_not_written_over(copied: Path, rows: Path, tiny_folder: Path, armorm: Armorm, place: str):
    own = copied.parent / "own"
    own.mkdir()
    (own / "SHA256SUMS").write_text("0" * 64 + "  data.bin\n")
    if place == ".":
        with pytest.raises(DataError, match=r"SHA256SUMS: is there already and is not as armorm would have written it"):
            train(load_recipe(write_recipe(rows, tiny_folder)), own, reporter=QUIET)
    else:
        code, _, said = armorm("bench", copied / "model", "--suite", rows / "pairs.jsonl", "--out", own)
        assert code == 2, said
    assert [file.name for file in own.iterdir()] == ["SHA256SUMS"]
    assert (own / "SHA256SUMS").read_text() == "0" * 64 + "  data.bin\n"


def test_a_finished_run_can_be_read_where_nothing_can_be_written(copied: Path, run: Run, rows: Path, tiny_folder: Path):
    before = {file: file.stat().st_mtime_ns for file in copied.rglob("*") if file.is_file()}
    assert train(load_recipe(write_recipe(rows, tiny_folder)), copied, reporter=QUIET).computed == ()
    assert {file: file.stat().st_mtime_ns for file in before} == before


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        *((name, "") for name in ("out.jsonl", "out.jsonl.gz", "out.parquet")),
        *((name, ".part") for name in ("out.jsonl", "out.jsonl.gz")),
        ("out.parquet", ".parts"),
    ],
)
def test_rows_are_written_over_nothing(tmp_path: Path, name: str, ending: str):
    own = tmp_path / f"{name}{ending}"
    if ending == ".parts":
        own.mkdir()
        own = own / "part-0000000.parquet"
    own.write_text("mine")
    with pytest.raises(DataError, match="is there already"):
        write_rows([{"a": 1}], tmp_path / name)
    assert own.read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_rights_are_those_that_the_umask_leaves(run: Run):
    rights = {file.stat().st_mode & 0o777 for file in run.folder.rglob("*") if file.is_file()}
    assert rights == {0o666 & ~umask()}


def umask() -> int:
    probe = Path("/proc/self/status").read_text().split("Umask:")[1].split()[0]
    return int(probe, 8)


@pytest.mark.parametrize("command", ["bench", "audit", "inspect", "explain", "export", "pairs"])
def test_no_command_writes_over_a_file_of_somebody_elses(copied: Path, rows: Path, tmp_path: Path, armorm: Armorm, command: str):
    model, pairs, own = copied / "model", rows / "pairs.jsonl", tmp_path / "own"
    own.mkdir()
    names = {"bench": "results.json", "audit": "audit.html", "inspect": "inspect.json", "explain": "page.html"}
    file = own / names.get(command, "rows.parquet")
    file.write_text("mine")
    words: dict[str, list[object]] = {
        "bench": ["bench", model, "--suite", pairs, "--out", own],
        "audit": ["audit", model, pairs, "--limit", "2", "--out", own],
        "inspect": ["data", "inspect", pairs, "--out", own],
        "explain": ["explain", model, pairs, "--html", file],
        "export": ["data", "export", pairs, "--out", file],
        "pairs": ["pairs", pairs, "--out", file],
    }
    code, _, said = armorm(*words[command])
    assert code == 2, said
    assert "there already" in said
    assert state(own) == {file.name: hashlib.sha256(b"mine").hexdigest()}


def test_our_own_pages_are_replaced(copied: Path, rows: Path, tmp_path: Path, armorm: Armorm):
    page = tmp_path / "page.html"
    for row in (1, 2):
        code, _, said = armorm("explain", copied / "model", rows / "pairs.jsonl", "--row", row, "--html", page)
        assert code == 0, said
    for _ in range(2):
        code, _, said = armorm("bench", copied / "model", "--suite", rows / "pairs.jsonl", "--out", tmp_path / "bench")
        assert code == 0, said
